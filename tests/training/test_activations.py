"""Activations: what padding and batches give is what each text alone gives, at the right layer and token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from archmodels import KINDS, arch_model
from tinymodel import make_tiny_model

from tailrisk.errors import InputError, ModelError
from tailrisk.models.engine import View
from tailrisk.models.interventions.ablation import Ablation
from tailrisk.models.interventions.addition import Addition
from tailrisk.models.interventions.blocks import blocks_of
from tailrisk.models.loading import load_model, resolve_model
from tailrisk.training.activations import padded, prompt_means, response_means

TEXTS = [tuple(range(3, 3 + n)) for n in (5, 9, 7, 5, 12)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory):
    folder = make_tiny_model(tmp_path_factory.mktemp("act") / "m", layers=3, spread=0.4)
    return load_model(resolve_model(str(folder), Path("/")), "float64", "cpu")


def alone(model, ids) -> torch.Tensor:
    """[blocks, tokens, hidden]: outputs of the blocks by the library's own way, but for the last one's norm."""
    outputs: list[torch.Tensor] = []

    def keep(module: Any, args: Any, output: Any) -> None:
        outputs.append(output[0] if isinstance(output, tuple) else output)

    handles = [b.layer.register_forward_hook(keep) for b in blocks_of(model)]
    with torch.inference_mode():
        states = model(torch.tensor([list(ids)]), output_hidden_states=True).hidden_states
    for handle in handles:
        handle.remove()
    found = torch.cat(outputs)
    assert torch.equal(found[0], states[1][0]), "block 0's output is hidden state 1"
    return found


def test_prompt_means_are_the_means_of_single_passes(model) -> None:
    means = prompt_means(View(model), TEXTS, 4)
    want = torch.stack([alone(model, ids)[:, -4:] for ids in TEXTS]).mean(0).transpose(0, 1)
    assert means.shape == (4, 3, 16) and means.dtype == torch.float64
    assert torch.allclose(means, want, atol=1e-10)


def test_response_means_are_over_the_response_only(model) -> None:
    pairs = [(ids[:3], ids[3:]) for ids in TEXTS]
    found = response_means(View(model), pairs)
    want = torch.stack([alone(model, ids)[:, 3:].mean(1) for ids in TEXTS])
    assert found.shape == (5, 3, 16) and found.dtype == torch.float32
    assert torch.allclose(found, want.float(), atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_padding_changes_nothing_in_any_architecture(kind: str) -> None:
    other = arch_model(kind)
    together = prompt_means(View(other), TEXTS, 2)
    single = torch.stack([prompt_means(View(other), [ids], 2) for ids in TEXTS]).mean(0)
    assert torch.allclose(together, single, atol=1e-9)


def test_changes_inside_the_model_are_seen_and_gone_afterwards(model) -> None:
    vector = torch.randn(16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    plain = prompt_means(View(model), TEXTS, 1)
    added = prompt_means(View(model, (Addition({1: vector}, 2.0),)), TEXTS, 1)
    assert torch.allclose(added[0, 0], plain[0, 0])
    assert torch.allclose(added[0, 1], plain[0, 1] + 2.0 * vector)
    removed = prompt_means(View(model, (Ablation(vector, form="writes"),)), TEXTS, 1)
    assert float((removed @ vector).abs().max()) < 1e-10
    assert torch.equal(prompt_means(View(model), TEXTS, 1), plain)


def test_every_text_is_in_one_pass_and_passes_are_bounded() -> None:
    device = torch.device("cpu")
    batches = list(padded(TEXTS, device, limit=20))
    assert sorted(row for b in batches for row in b.rows) == [0, 1, 2, 3, 4]
    assert all(b.ids.numel() <= 20 or len(b.rows) == 1 for b in batches)
    for batch in batches:
        for place, row in enumerate(batch.rows):
            assert tuple(batch.ids[place, : batch.lengths[place]].tolist()) == TEXTS[row]
    assert [b.rows for b in padded(TEXTS, device, limit=1)] == [[0], [3], [2], [1], [4]]


def test_progress_counts_every_text(model) -> None:
    seen: list[int] = []
    prompt_means(View(model), TEXTS, 1, seen.append)
    assert sum(seen) == len(TEXTS)


def test_what_cannot_be_read_is_refused(model) -> None:
    with pytest.raises(InputError, match="no prompts"):
        prompt_means(View(model), [], 1)
    with pytest.raises(InputError, match="last 6 tokens are wanted; the shortest prompt has 5"):
        prompt_means(View(model), TEXTS, 6)
    with pytest.raises(InputError, match="pair 1: an empty"):
        response_means(View(model), [((3, 4), (5,)), ((3, 4), ())])
    with pytest.raises(ModelError, match="do not fit"):
        prompt_means(View(model), [tuple([3] * 200)], 1)


def test_activations_that_are_not_finite_are_an_error(model) -> None:
    huge = torch.full((16,), 1e308, dtype=torch.float64)
    with pytest.raises(ModelError, match="not finite"):
        prompt_means(View(model, (Addition({0: huge}, 10.0),)), TEXTS, 1)
