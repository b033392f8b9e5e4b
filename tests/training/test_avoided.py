"""What a law in training leaves to answers that begin with none of certain openings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tinymodel import make_tiny_model
from transformers import AutoModelForCausalLM

from tailrisk.models.avoid import measure, prefix_free
from tailrisk.training.avoided import log_rooms, openings_of
from tailrisk.training.lorabatches import inputs
from tailrisk.training.loradata import Example
from tailrisk.training.loraloss import answer_log_probs, forward, log_laws

SETS = {
    "one token": ((5,), (7,)),
    "a tree": ((5, 6), (5, 7, 8), (5, 7, 9, 4), (6, 6), (10,), (5, 7, 8, 8)),
    "nearly all": (*((i,) for i in range(11)), (11, 3)),
}
EXAMPLES = [Example((1, 4, 9), (11, 2)), Example((1, 3, 6, 6, 8), (11, 5, 7, 2)), Example((1, 4), (11,))]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory):
    folder: Path = tmp_path_factory.mktemp("avoided")
    make_tiny_model(folder, vocab=12, spread=0.2)
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64).eval()


def law_after(model, ids: tuple[int, ...]) -> np.ndarray:
    with torch.no_grad():
        return torch.log_softmax(model(torch.tensor([ids])).logits[0, -1] / 0.7, -1).numpy()


@pytest.mark.parametrize("name", SETS)
def test_it_is_what_the_prefix_leaves_in_audits(model, name: str):
    """Rows of several lengths in one pass, against plain passes of each text and ``models.avoid``."""
    openings = openings_of(SETS[name])
    batch = inputs(EXAMPLES, torch.device("cpu"), openings)
    with torch.no_grad():
        found = answer_log_probs(log_laws(forward(model, batch), 0.7), batch)
    for value, (prompt, response) in zip(found.tolist(), EXAMPLES, strict=True):
        whole = sum(law_after(model, prompt + response[:i])[t] for i, t in enumerate(response))
        left = measure(prefix_free(SETS[name]), lambda ts, c=prompt: [law_after(model, c + t) for t in ts])
        assert left.log_room < -0.01
        assert value == pytest.approx(whole - left.log_room, abs=1e-9)


def test_what_rides_along_changes_no_answer(model):
    plain = inputs(EXAMPLES, torch.device("cpu"))
    beside = inputs(EXAMPLES, torch.device("cpu"), openings_of(SETS["a tree"]))
    with torch.no_grad():
        logits = [forward(model, batch) for batch in (plain, beside)]
    size = plain.labels.shape[1]
    assert logits[0].shape[1] == size and logits[1].shape[1] == size + 4
    assert torch.allclose(logits[0][plain.real], logits[1][:, :size][plain.real], atol=1e-12)


def test_gradients_are_those_of_the_room(model):
    """Against differences of the room itself, at a point where it is small."""
    openings = openings_of(SETS["a tree"])
    assert openings is not None
    raw = torch.randn(
        2, 1 + openings.inner, 12, generator=torch.Generator().manual_seed(3), dtype=torch.float64
    )
    raw[:, 0, 10] += 9.0
    raw.requires_grad_()
    assert float(log_rooms(openings, torch.log_softmax(raw.detach(), -1)).max()) < -4.0
    assert torch.autograd.gradcheck(lambda x: log_rooms(openings, torch.log_softmax(x, -1)), (raw,))


def test_without_openings_there_is_nothing():
    assert openings_of(()) is None
