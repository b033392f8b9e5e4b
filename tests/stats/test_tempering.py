"""Weights for a fit: normalised per prompt, tempered to a floor; the divergence against an exact one."""

import numpy as np
import pytest

from tailrisk.stats.tempering import hit_divergence, tempered


def test_without_need_the_weights_are_the_parts_themselves():
    found = tempered([np.log([1.0, 3.0]), np.log([2.0, 2.0, 4.0])], floor=1.0)
    assert found.gamma == 1.0
    assert found.weights[0] == pytest.approx([0.25, 0.75])
    assert found.weights[1] == pytest.approx([0.25, 0.25, 0.5])
    assert found.ess == pytest.approx(4.0 / (0.0625 + 0.5625 + 0.0625 + 0.0625 + 0.25))


def test_the_largest_power_that_keeps_the_floor():
    rng = np.random.default_rng(3)
    parts = [rng.normal(0.0, 4.0, n) for n in (5, 40, 300)]
    whole = tempered(parts, floor=0.0)
    assert whole.gamma == 1.0 and whole.ess < 6.0
    found = tempered(parts, floor=20.0)
    assert 0.0 < found.gamma < 1.0
    assert found.ess == pytest.approx(20.0, rel=1e-9)
    for parts_of_one, weights in zip(parts, found.weights, strict=True):
        assert weights.sum() == pytest.approx(1.0)
        assert np.diff(np.log(weights)) == pytest.approx(found.gamma * np.diff(parts_of_one))


def test_a_floor_out_of_reach_gives_even_weights():
    found = tempered([np.array([0.0, 50.0]), np.array([-3.0])], floor=20.0)
    assert found.gamma == pytest.approx(0.0, abs=1e-9)
    assert found.weights[0] == pytest.approx([0.5, 0.5])
    assert found.ess == pytest.approx(4.0 / 1.5)


@pytest.mark.parametrize("parts", [[], [np.array([])], [np.array([0.0, -np.inf])]])
def test_what_cannot_be_weighted_is_refused(parts):
    with pytest.raises(ValueError):
        tempered(parts, floor=1.0)


def test_divergence_is_unbiased_enough_to_see_two_per_cent():
    """Hits drawn from q* itself through a third law, against the sum over all outcomes."""
    rng = np.random.default_rng(11)
    p, q, drawn_by = (rng.dirichlet(np.ones(40)) for _ in range(3))
    harmful = np.arange(40) < 15
    mu = p[harmful].sum()
    star = np.where(harmful, p, 0.0) / mu
    exact = float((star[harmful] * np.log(star[harmful] / q[harmful])).sum())
    found = []
    for _ in range(400):
        outcomes = rng.choice(40, 4000, p=drawn_by)
        hits = outcomes[harmful[outcomes]]
        parts = np.log(p[hits] / drawn_by[hits] / len(outcomes))
        found.append(hit_divergence(parts, np.log(p[hits] / q[hits]), float(np.log(np.exp(parts).sum()))))
    error = np.std(found, ddof=1) / np.sqrt(len(found))
    assert error < 0.02 * exact
    assert abs(np.mean(found) - exact) < 3.0 * error + 0.01 * exact


def test_a_hit_that_the_law_cannot_produce_is_infinitely_far():
    assert hit_divergence(np.zeros(2), np.array([0.5, np.inf]), 0.0) == np.inf
