"""The inverse of the distribution function, against numpy's, and at its edges."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tailrisk.models.draw import pick


@pytest.mark.parametrize("size", [1, 5, 64, 100, 640, 1000, 49152])
def test_pick_inverts_the_distribution_function(size: int) -> None:
    generator = torch.Generator().manual_seed(size)
    probs = torch.softmax(torch.randn(3, size, generator=generator, dtype=torch.float64) * 4, -1)
    rows = torch.tensor([0, 1, 2, 2, 0] * 40)
    uniforms = torch.rand(200, generator=generator, dtype=torch.float64)
    got = pick(probs, rows, uniforms).numpy()
    table = np.cumsum(probs.numpy(), -1)
    want = [
        np.searchsorted(table[r] / table[r, -1], u, side="right")
        for r, u in zip(rows.tolist(), uniforms.tolist(), strict=True)
    ]
    assert got.tolist() == want


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_impossible_tokens_are_never_picked(dtype: torch.dtype) -> None:
    probs = torch.zeros(1, 300, dtype=dtype)
    probs[0, [3, 70, 71, 256]] = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=dtype)
    edges = torch.tensor([0.0, 0.1, 0.3, 0.6, 1 - 2**-53, 0.99999999], dtype=torch.float64)
    picked = pick(probs, torch.zeros(6, dtype=torch.int64), edges).tolist()
    assert set(picked) <= {3, 70, 71, 256}
    assert picked[0] == 3
    assert picked[-2:] == [256, 256]


def test_frequencies_follow_the_law() -> None:
    probs = torch.softmax(torch.arange(10, dtype=torch.float32) / 3, -1).unsqueeze(0)
    n = 200_000
    uniforms = torch.rand(n, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    counts = np.bincount(pick(probs, torch.zeros(n, dtype=torch.int64), uniforms).numpy(), minlength=10)
    p = probs[0].double().numpy()
    assert np.all(np.abs(counts - n * p) < 4.5 * np.sqrt(n * p * (1 - p)))


def test_a_tail_far_below_float32_steps_of_one_is_resolved() -> None:
    probs = torch.full((1, 512), 1e-12)
    probs[0, 0] = 1.0
    beyond = 1.0 + 511e-12
    uniforms = torch.tensor([(1.0 + 100.5e-12) / beyond, (1.0 + 400.5e-12) / beyond], dtype=torch.float64)
    picked = pick(probs, torch.zeros(2, dtype=torch.int64), uniforms).tolist()
    # The block of the first token is summed in float32, so the tail inside it is lost, that behind it is not.
    assert picked[1] > 256
