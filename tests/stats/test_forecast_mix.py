"""A traffic mix of audited prompts: the chance of harm against enumeration, and a band that holds for all prompts."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from tailrisk.stats.forecast import Evidence, Plain, forecast, plain_ends, prompt_confidence
from tailrisk.stats.forecast.mix import certified_band, chance, pooled_upper, queries_until


def test_the_chance_is_the_mean_over_all_counts_of_the_queries():
    p, w, n = np.array([0.3, 0.01, 1.0]), np.array([0.5, 0.4, 0.1]), 4
    total = 0.0
    for asked in itertools.product(range(3), repeat=n):
        counts = np.bincount(asked, minlength=3)
        total += math.prod(w[list(asked)]) * (1 - np.prod((1 - p) ** counts))
    assert chance(w @ p, n) == pytest.approx(total, rel=1e-12)


@pytest.mark.parametrize(("n", "expected"), [(1e4, 0.00995), (1e5, 0.0952), (1e6, 0.632), (6.93e5, 0.5)])
def test_the_known_anchors_of_one_in_a_million(n, expected):
    assert chance(1e-6, n) == pytest.approx(expected, rel=2e-3)


def test_the_chance_at_the_ends():
    assert chance(0.0, 1e9) == 0 and chance(1.0, 1) == 1
    assert queries_until(0.0, 0.5) == math.inf and queries_until(1.0, 0.95) == 1


@pytest.mark.parametrize("reached", [0.01, 0.5, 0.95])
def test_the_number_of_queries_gives_that_chance(reached):
    assert chance(3e-5, queries_until(3e-5, reached)) == pytest.approx(reached, rel=1e-9)


def test_clean_prompts_are_bounded_as_one():
    """All clean and alike: sum n p <= C is a bound of the mean, C / (m n)."""
    m, n = 100, 500
    plain = Plain(np.full(m, n), np.zeros(m, dtype=int), np.zeros(m, dtype=int))
    _, upper = plain_ends(plain, 0.75 * 0.05 / m)
    c = math.log(1 / 0.0125) - m * math.log(0.98)
    got = pooled_upper(np.full(m, 1 / m), plain, upper, 0.0125)
    assert got == pytest.approx(c / (m * n), rel=1e-9)
    assert got < upper.mean() / 10


def test_prompts_without_target_draws_may_be_anything():
    plain = Plain(np.array([1000, 0]), np.zeros(2, dtype=int), np.zeros(2, dtype=int))
    band = certified_band(np.array([0.9, 0.1]), *plain_ends(plain, 0.01), plain, 0.05)
    assert band.low == 0 and 0.1 < band.high < 0.11


def test_the_band_holds_for_all_prompts_together():
    """Prompts of very different risk; 95 % ends of each prompt, added up, hold less often than they say: these hold."""
    m, draws, times = 60, 300, 200
    p = np.geomspace(1e-5, 0.2, m)
    w = np.full(m, 1 / m)
    rng = np.random.default_rng(4)
    level = prompt_confidence(0.95, m)
    missed_band = missed_prompt = 0
    for _ in range(times):
        plain = Plain(np.full(m, draws), rng.binomial(draws, p), np.zeros(m, dtype=int))
        low, high = plain_ends(plain, 1 - level)
        band = certified_band(w, low, high, plain, 0.05)
        missed_band += not band.low <= w @ p <= band.high
        missed_prompt += not np.all((low <= p) & (p <= high))
    assert missed_band <= 0.05 * times and missed_prompt <= 0.05 * times


def evidence(estimate, error, *, lower=None, upper=None, unknown=None, group=None) -> Evidence:
    estimate = np.asarray(estimate, dtype=float)
    m = len(estimate)
    known = np.isfinite(estimate)
    return Evidence(
        estimate,
        np.where(known, error, np.nan),
        np.full(m, 50.0),
        np.zeros(m) if lower is None else np.asarray(lower, dtype=float),
        np.full(m, 0.02) if upper is None else np.asarray(upper, dtype=float),
        np.arange(m) if group is None else np.asarray(group),
        np.zeros(m, dtype=bool) if unknown is None else np.asarray(unknown),
    )


def uniform(e: Evidence, n: float, seed: int = 0):
    m = len(e.estimate)
    plain = Plain(np.full(m, 500), np.zeros(m, dtype=int), np.zeros(m, dtype=int))
    ends = plain_ends(plain, 1 - prompt_confidence(0.95, m))
    return forecast(e, np.full(m, 1 / m), ends, plain, n, np.random.default_rng(seed), 120)


def test_sharp_estimates_give_the_plain_formula():
    p = np.array([1e-3, 1e-4, 1e-5])
    found = uniform(evidence(p, 0.01), 2000)
    assert found.model is not None
    assert found.model.any[1] == pytest.approx(1 - (1 - p.mean()) ** 2000, rel=0.01)
    assert found.model.mean == pytest.approx(np.full(3, p.mean()), rel=0.03)
    assert found.model.worst[1] == pytest.approx(1e-3, rel=0.01)
    reach = found.model.reach[0.5]
    assert reach[0] < reach[1] < reach[2]
    assert reach[1] == pytest.approx(math.log(0.5) / math.log1p(-p.mean()), rel=0.02)


def test_the_mean_chance_is_below_the_chance_of_the_mean():
    """Concave in p: the chance is smaller than what the mean probability gives."""
    found = uniform(evidence([1e-3, 1e-3], 0.8), 1000)
    assert found.model is not None
    assert found.model.any[1] < float(chance(found.model.mean[1], 1000)) - 0.02


def test_without_a_quotable_estimate_there_is_no_model():
    found = uniform(evidence([np.nan] * 4, 0.5), 1e6)
    told = found.to_json()
    assert told["model"] is None and told["beta_binomial"] is None
    assert told["certified"]["any"][0] == 0 and told["certified"]["any"][1] == pytest.approx(1)
    assert told["certified"]["reach"]["0.5"][1] is None, "never"


def test_the_same_seed_gives_the_same_forecast():
    e = evidence(np.geomspace(1e-6, 1e-2, 12), 0.4)
    assert uniform(e, 1e4).to_json() == uniform(e, 1e4).to_json()


def test_a_prompt_of_which_nothing_is_known_is_like_the_others_by_the_model_and_anything_in_the_band():
    p = np.geomspace(1e-6, 1e-3, 20)
    known = uniform(evidence(p, 0.2), 1e3)
    some = evidence(np.append(p, np.nan), 0.2, upper=[0.02] * 20 + [1.0], unknown=[False] * 20 + [True])
    plain = Plain(np.append(np.full(20, 500), 0), np.zeros(21, dtype=int), np.zeros(21, dtype=int))
    ends = plain_ends(plain, 1 - prompt_confidence(0.95, 21))
    found = forecast(some, np.full(21, 1 / 21), ends, plain, 1e3, np.random.default_rng(0), 120)
    assert found.certified.high >= 1 / 21 and found.certified_worst.high == 1
    assert found.model is not None and known.model is not None
    assert found.model.covers == pytest.approx(1)
    assert found.model.mean[2] - found.model.mean[0] > 2 * (known.model.mean[2] - known.model.mean[0])
