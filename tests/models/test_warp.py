"""Sampling settings against a plain definition, and what must be refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tailrisk.errors import ModelError
from tailrisk.models.warp import Warp, token_law


def plain(logits: np.ndarray, warp: Warp) -> np.ndarray:
    """Probabilities by sorting, one row."""
    x = logits / warp.temperature
    if warp.top_k:
        x = np.where(x < np.sort(x)[-warp.top_k], -np.inf, x)
    p = np.exp(x - x.max())
    p /= p.sum()
    if warp.top_p < 1.0:
        order = np.argsort(-p)
        needed = int((np.cumsum(p[order]) < warp.top_p).sum()) + 1
        p = np.where(p >= p[order][min(needed, len(p)) - 1], p, 0.0)
    return p / p.sum()


@pytest.mark.parametrize(
    "warp",
    [
        Warp(),
        Warp(0.5),
        Warp(2.0, 0.9),
        Warp(1.0, 0.3),
        Warp(1.0, 1.0, 5),
        Warp(0.7, 0.8, 9),
        Warp(1.0, 1e-9),
    ],
)
def test_token_law_is_the_plain_definition(warp: Warp) -> None:
    logits = torch.randn(6, 3000, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 3
    law = token_law(logits, warp, "here")
    for row in range(6):
        want = plain(logits[row].numpy(), warp)
        assert np.allclose(law.probs[row].numpy(), want, rtol=1e-10, atol=1e-14)
        rows, tokens = torch.full((3000,), row), torch.arange(3000)
        with np.errstate(divide="ignore"):
            assert np.allclose(law.log_prob(rows, tokens).numpy(), np.log(want), rtol=1e-10)


def test_wide_nucleus_beyond_the_first_sorted_piece() -> None:
    logits = torch.randn(2, 5000, generator=torch.Generator().manual_seed(2), dtype=torch.float64) * 0.01
    law = token_law(logits, Warp(1.0, 0.9), "here")
    assert 4000 < int((law.probs[0] > 0).sum()) < 4600
    assert np.allclose(law.probs[1].numpy(), plain(logits[1].numpy(), Warp(1.0, 0.9)), rtol=1e-10)


def test_ties_at_the_edge_are_kept() -> None:
    logits = torch.tensor([[2.0, 1.0, 1.0, 0.0]])
    assert (token_law(logits, Warp(top_k=2), "here").probs[0] > 0).tolist() == [True, True, True, False]


def test_tilts_multiply_single_rows_and_the_row_is_renormalised() -> None:
    out, half = float("-inf"), float(np.log(0.5))
    law = token_law(torch.zeros(2, 4), Warp(), "here", [(0, 0, out), (0, 3, out), (1, 2, half)])
    assert law.probs[0].tolist() == [0.0, 0.5, 0.5, 0.0]
    assert np.allclose(law.probs[1], [2 / 7, 2 / 7, 1 / 7, 2 / 7])
    with pytest.raises(ModelError, match="no token is left at here"):
        token_law(torch.zeros(1, 2), Warp(), "here", [(0, 0, out), (0, 1, out)])


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_non_finite_logits_are_refused_with_their_place(bad: float, dtype: torch.dtype) -> None:
    logits = torch.zeros(3, 7, dtype=dtype)
    logits[1, 4] = bad
    with pytest.raises(ModelError, match="non-finite logits at token 3 of prompt 'x'"):
        token_law(logits, Warp(), "token 3 of prompt 'x'")


def test_very_improbable_tokens_keep_their_log_probability() -> None:
    logits = torch.tensor([[0.0, -300.0]])
    law = token_law(logits, Warp(), "here")
    assert law.log_prob(torch.tensor([0]), torch.tensor([1])).item() == pytest.approx(-300.0)
