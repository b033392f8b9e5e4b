from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrisk.audit.counts import batch_sizes, split_draws


@given(
    n=st.integers(2, 5000),
    raw=st.lists(st.floats(0.0, 1.0), min_size=1, max_size=8),
    share=st.floats(0.01, 1.0),
)
def test_split_keeps_its_promises(n, raw, share):
    raw[0] += 0.01
    shares = np.array(raw) / sum(raw)
    counts = split_draws(n, shares, share)
    assert sum(counts) == n
    assert counts[0] >= 2 and counts[0] >= math.ceil(share * n - 1e-6)
    assert all(c == 0 or c >= 2 for c in counts)
    room = (n - max(2, math.ceil(round(share * n, 9)))) // 2
    worth = max(int((shares[1:] * n >= 1 - 1e-9).sum()), int((shares[1:] > 0).any()))
    assert sum(c > 0 for c in counts[1:]) == min(room, worth)


def test_split_follows_the_shares():
    assert split_draws(100, [0.2, 0.5, 0.3, 0.0], 0.2) == (20, 50, 30, 0)
    assert split_draws(100, [0.2, 0.79, 0.01], 0.2) == (20, 78, 2)
    assert split_draws(10, [0.2, 0.79, 0.01], 0.2) == (2, 8, 0), "a tenth of a draw is none"
    assert split_draws(5, [0.4, 0.15, 0.15, 0.15, 0.15], 0.4) == (3, 2, 0, 0, 0), "but one is always there"
    assert split_draws(4, [0.4, 0.2, 0.4], 0.2) == (2, 0, 2)
    assert split_draws(7, [1.0], 0.2) == (7,)


def test_too_few_draws_to_split():
    with pytest.raises(ValueError, match="1 draws"):
        split_draws(1, [0.5, 0.5], 0.2)


@given(n=st.integers(0, 1000), most=st.integers(1, 64))
def test_batches_are_few_and_even(n, most):
    sizes = batch_sizes(n, most)
    assert sum(sizes) == n and len(sizes) == math.ceil(n / most)
    assert not sizes or (max(sizes) <= most and max(sizes) - min(sizes) <= 1)
