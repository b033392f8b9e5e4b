from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrisk.audit.counts import batch_sizes, split_draws
from tailrisk.records import expected_draws


@given(
    n=st.integers(2, 5000),
    raw=st.lists(st.floats(0.0, 1.0), min_size=1, max_size=8),
    share=st.floats(0.01, 1.0),
    seed=st.integers(0, 2**63 - 1),
)
def test_split_keeps_its_promises(n, raw, share, seed):
    raw[0] += 0.01
    shares = np.array(raw) / sum(raw)
    counts, faded = split_draws(n, shares, share, seed)
    assert sum(counts) == n and min(counts) >= 0
    assert counts[0] >= 2 and counts[0] >= math.ceil(share * n - 1e-6)
    room = n - max(2, math.ceil(round(share * n, 9)))
    expected = expected_draws(counts, faded)
    assert expected.sum() == pytest.approx(n)
    assert ((expected > 0) == (shares > 0))[1:].all() or room < 2, "whoever has a share can produce a draw"
    lot = np.zeros(len(raw), dtype=bool) if faded is None else np.array(faded) > 0
    assert not lot[0] and lot.sum() != 1, "a lot among one is none"
    assert all(c >= 2 for c, drawn in zip(counts[1:], lot[1:], strict=True) if c and not drawn)
    if lot.any():
        inside = np.array(faded)[lot]
        assert inside / inside.sum() == pytest.approx(shares[lot] / shares[lot].sum())
        assert np.array(counts)[lot].sum() == pytest.approx(inside.sum())
        assert shares[lot].max() <= shares[1:][(shares > 0)[1:] & ~lot[1:]].min(initial=np.inf)


def test_split_follows_the_shares():
    assert split_draws(100, [0.2, 0.5, 0.3, 0.0], 0.2, 0) == ((20, 50, 30, 0), None)
    assert split_draws(100, [0.2, 0.79, 0.01], 0.2, 0) == ((20, 78, 2), None), "one alone draws no lots"
    assert split_draws(10, [0.2, 0.79, 0.01], 0.2, 0) == ((2, 6, 2), None)
    assert split_draws(3, [0.4, 0.2, 0.4], 0.2, 0) == ((3, 0, 0), None), "one draw is not enough for two"
    assert split_draws(7, [1.0], 0.2, 0) == ((7,), None)
    counts, faded = split_draws(30, [0.1, 0.86, 0.01, 0.02, 0.01], 0.1, 0)
    assert counts[:2] == (3, 26) and sum(counts[2:]) == 1
    assert faded == pytest.approx((0, 0, 0.25, 0.5, 0.25))
    counts, faded = split_draws(5, [0.4, 0.15, 0.15, 0.15, 0.15], 0.4, 0)
    assert counts[0] == 2 and faded == pytest.approx((0, 0.75, 0.75, 0.75, 0.75))


def test_the_lot_is_fair_and_of_its_seed():
    shares = [0.1, 0.805, 0.02, 0.045, 0.03]
    drawn = np.array([split_draws(40, shares, 0.1, seed).counts for seed in range(4000)])
    faded = np.array(split_draws(40, shares, 0.1, 0).faded)
    lot = faded > 0
    size = faded.sum()
    spread = np.sqrt(faded * (1 - faded / size) / len(drawn))
    assert size == pytest.approx(4) and lot.sum() == 3
    assert (np.abs(drawn.mean(axis=0) - faded)[lot] <= 4 * spread[lot]).all()
    assert (drawn[:, ~lot] == drawn[0, ~lot]).all() and len(np.unique(drawn, axis=0)) > 1
    assert split_draws(40, shares, 0.1, 7) == split_draws(40, shares, 0.1, 7)


def test_too_few_draws_to_split():
    with pytest.raises(ValueError, match="1 draws"):
        split_draws(1, [0.5, 0.5], 0.2, 0)


@given(n=st.integers(0, 1000), most=st.integers(1, 64))
def test_batches_are_few_and_even(n, most):
    sizes = batch_sizes(n, most)
    assert sum(sizes) == n and len(sizes) == math.ceil(n / most)
    assert not sizes or (max(sizes) <= most and max(sizes) - min(sizes) <= 1)
