"""First tokens: the shared start and the padding change no probability; the scores are their formulas."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from archmodels import KINDS, arch_model
from tinymodel import make_tiny_model

from tailrisk.errors import ModelError
from tailrisk.models.engine import View
from tailrisk.models.interventions import all_applied
from tailrisk.models.interventions.ablation import Ablation
from tailrisk.models.interventions.addition import Addition
from tailrisk.models.loading import load_model, resolve_model
from tailrisk.training.firsttokens import FirstTokens, divergence, refusal_scores, shared_start

START = (1, 7, 9, 11, 13)
TEXTS = [START + tuple(range(3, 3 + n)) for n in (1, 4, 9)] + [(*START, 20, 21)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory):
    folder = make_tiny_model(tmp_path_factory.mktemp("first") / "m", layers=3, spread=0.4)
    return load_model(resolve_model(str(folder), Path("/")), "float64", "cpu")


def alone(model, changes=()) -> torch.Tensor:
    with all_applied(model, changes), torch.inference_mode():
        rows = [model(torch.tensor([ids])).logits[0, -1] for ids in TEXTS]
    return torch.stack(rows).log_softmax(-1)


def changes() -> list[tuple]:
    vector = torch.randn(16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return [(), (Ablation(vector),), (Addition({1: vector}, 2.0),), (Ablation(vector), Addition({0: vector}))]


@pytest.mark.parametrize("number", range(4))
def test_they_are_the_models_own(model, number: int) -> None:
    change = changes()[number]
    found = FirstTokens(TEXTS).log_probs(View(model, change))
    assert torch.allclose(found, alone(model, change), atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_in_every_architecture(kind: str) -> None:
    other = arch_model(kind)
    assert torch.allclose(FirstTokens(TEXTS).log_probs(View(other)), alone(other), atol=1e-9)


def test_the_shared_start_leaves_a_token_of_every_prompt() -> None:
    assert shared_start(TEXTS) == list(START)
    assert shared_start([START, START]) == list(START[:-1])
    assert shared_start([START]) == []
    assert shared_start([(1, 2, 3), (1, 2, 4)]) == [], "too short to be worth a pass"


def test_without_a_shared_start(model) -> None:
    texts = [(3, 4, 5), (4, 5), (9,)]
    found = FirstTokens(texts).log_probs(View(model))
    with torch.inference_mode():
        want = torch.stack([model(torch.tensor([ids])).logits[0, -1] for ids in texts]).log_softmax(-1)
    assert torch.allclose(found, want, atol=1e-9)


def test_a_broken_model_is_an_error_or_nan(model) -> None:
    broken = View(model, (Addition({0: torch.full((16,), 1e308, dtype=torch.float64)}, 10.0),))
    with pytest.raises(ModelError, match="first token"):
        FirstTokens(TEXTS).log_probs(broken)
    assert bool(FirstTokens(TEXTS).log_probs(broken, finite=False).isnan().any())


def test_refusal_scores_are_log_odds() -> None:
    law = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]]).log()
    assert refusal_scores(law, [0, 1]).tolist() == pytest.approx([math.log(4), math.log(0.25)])
    sure = torch.tensor([[0.0, -800.0, -900.0]], dtype=torch.float64)
    assert float(refusal_scores(sure, [0])) == pytest.approx(800.0), "no rounding to certainty"


def test_the_divergence_is_of_the_plain_law_from_the_changed() -> None:
    p, q = torch.tensor([[0.9, 0.1], [0.5, 0.5]]), torch.tensor([[0.5, 0.5], [0.5, 0.5]])
    want = (0.9 * math.log(0.9 / 0.5) + 0.1 * math.log(0.1 / 0.5)) / 2
    assert divergence(p.log(), q.log()) == pytest.approx(want, rel=1e-6)
    assert divergence(p.log(), p.log()) == 0.0
