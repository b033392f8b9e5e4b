"""Statements about many prompts: against closed forms, by enumeration, and against the estimator's own intervals."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy.stats import t as student

from tailrisk.stats.intervals import working_interval
from tailrisk.stats.populations import (
    Working,
    above,
    holm,
    p_above,
    p_below,
    simultaneous,
    spread,
)


def made(mean: float, error: float, ess: float, confidence: float) -> Working:
    interval = working_interval((mean, error), (mean, error), df=ess - 1, confidence=confidence)
    return Working(mean, interval, ess, confidence)


@pytest.mark.parametrize("ess", [1.2, 3.0, 40.0])
@pytest.mark.parametrize("family", [1, 7, 100])
def test_an_interval_for_a_family_is_the_one_at_its_level(ess, family):
    wider = working_interval((1e-5, 3e-6), (1e-5, 3e-6), df=ess - 1, confidence=1 - 0.1 / family)
    assert simultaneous(made(1e-5, 3e-6, ess, 0.9), family) == pytest.approx(wider, rel=1e-9, abs=1e-300)


def test_no_interval_leaves_the_unit_interval():
    low, high = simultaneous(made(0.3, 0.3, 2.0, 0.95), 10_000)
    assert 0.0 < low < 0.3 and high == 1.0


def test_p_values_are_the_levels_at_which_the_ends_meet_the_threshold():
    known = made(2e-4, 5e-5, 12.0, 0.95)
    low, high = known.interval
    assert p_above(known, low) == pytest.approx(0.025) and p_below(known, high) == pytest.approx(0.025)
    expected = student.sf(math.log(2e-4 / 1e-4) / (5e-5 / 2e-4), 11.0)
    assert p_above(known, 1e-4) == pytest.approx(expected)
    assert p_above(known, 2e-4) == pytest.approx(0.5) == p_below(known, 2e-4)
    assert p_below(made(0.5, 0.5, 2.0, 0.95), 0.9) == 1.0, "its upper end is 1"


def test_holm_by_hand():
    """The example of Holm (1979) in numbers: 0.01, 0.04, 0.03, 0.005 at 5 %."""
    assert holm([0.01, 0.04, 0.03, 0.005], 0.05).tolist() == [True, False, False, True]
    assert holm([0.01, 0.02, 0.022, 0.005], 0.05).tolist() == [True] * 4, (
        "step by step, where Bonferroni stops at two"
    )
    assert holm([], 0.05).tolist() == [] and holm([0.06], 0.05).tolist() == [False]


@pytest.mark.parametrize("true", [(True, True, True), (True, True, False), (True, False, False)])
def test_holm_rejects_a_true_hypothesis_with_probability_alpha_at_most(true):
    """By enumeration: p-values of true hypotheses are uniform on twentieths, those of false ones are small."""
    alpha, grid = 0.3, [(i + 1) / 20 for i in range(20)]
    wrong = total = 0.0
    for p in itertools.product(grid, repeat=3):
        chance = math.prod(1.0 if t else (1.9 if x <= 0.5 else 0.1) for x, t in zip(p, true, strict=True))
        rejected = holm(p, alpha)
        wrong += chance * any(r and t for r, t in zip(rejected, true, strict=True))
        total += chance
    assert 0 < wrong / total <= alpha + 1e-12
    for p in itertools.product(grid[:8], repeat=3):
        assert (holm(p, alpha) >= (np.array(p) <= alpha / 3)).all(), "Bonferroni's rejections among them"


def test_the_spread_takes_the_noise_of_the_draws_off():
    rng = np.random.default_rng(1)
    n, true, noise = 400, 2e-4, 1e-4
    means, trues, held = [], [], 0
    for _ in range(300):
        risks = np.abs(rng.normal(1e-3, true, n))
        found = spread(risks + rng.normal(0, noise, n), [noise] * n, 0.9)
        means.append(found.mean)
        trues.append(found.true**2)
        held += found.interval[0] <= 1e-3 <= found.interval[1]
    assert np.mean(means) == pytest.approx(1e-3, rel=2e-3)
    assert np.mean(trues) == pytest.approx(true**2, rel=0.02)
    assert 0.85 < held / 300 < 0.95
    assert found.standard_error == pytest.approx(noise / math.sqrt(n))


def test_few_prompts_have_little_to_say_of_others():
    assert spread([], [], 0.95).interval == (0.0, 1.0) and math.isnan(spread([], [], 0.95).mean)
    one = spread([0.2], [0.1], 0.95)
    assert (one.mean, one.standard_error, one.interval) == (0.2, 0.1, (0.0, 1.0))
    two = spread([0.1, 0.3], [0.0, 0.0], 0.95)
    assert two.between == pytest.approx(math.sqrt(0.02)) == two.true
    assert two.interval == (0.0, 1.0), "t with one degree of freedom"


def test_prompts_above_a_threshold_lie_between_those_shown_and_those_not_ruled_out():
    found = above([(0.2, 0.4), (0.0, 0.3), (0.01, 0.05)], [0.5, 0.3, 0.1, 0.005])
    assert [(a.shown, a.not_below) for a in found] == [(0, 0), (0, 2), (1, 2), (2, 3)]
    assert [(a.shown, a.not_below) for a in above([], [0.1])] == [(0, 0)]
