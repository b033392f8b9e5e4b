"""A strong judge on a sample: samples as promised, and estimates against a table's exact truth."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from stats_tables import good_pair

from tailrisk.records import FloatArray
from tailrisk.stats import NOT_ASKED, RoundDraws, StrongSample, certify, estimate_prompt, event_mean
from tailrisk.stats.estimators import sampled_values
from tailrisk.stats.sampling import fixed_size_sample
from tailrisk.stats.twostage import (
    BINS,
    calls_of_round,
    checks_made,
    choose,
    corrections,
    inclusion,
    learn_rates,
    predictions,
    weight_bins,
)

TABLE = good_pair()
COUNTS = np.array([200, 400, 400])


def test_samples_have_their_size_and_probabilities():
    rng = np.random.default_rng(0)
    pi = np.concatenate([rng.uniform(0.02, 0.9, 25), [1.0, 1.0, 0.0]])
    pi[0] += np.ceil(pi.sum()) - pi.sum() - (1 if pi[0] > 0.5 else 0)
    pi = np.clip(pi, 0.0, 1.0)
    group = np.arange(28) % 3
    times = 6000
    taken = np.array([fixed_size_sample(pi, group, seed) for seed in range(times)])
    sizes = taken.sum(axis=1)
    assert set(sizes.tolist()) <= {int(np.floor(pi.sum())), int(np.ceil(pi.sum() - 1e-9))}
    z = (taken.mean(axis=0) - pi) / np.sqrt(np.maximum(pi * (1 - pi), 1e-12) / times)
    assert np.abs(z[:25]).max() < 4.0
    assert taken[:, 25:27].all() and not taken[:, 27].any()
    # Negative association: no two are taken together more often than independent ones would be.
    both = taken.T.astype(float) @ taken / times
    excess = both - np.outer(pi, pi)
    np.fill_diagonal(excess, 0.0)
    assert excess.max() < 4 * 0.5 / np.sqrt(times)


@pytest.mark.parametrize(("calls", "least"), [(30, 0.02), (12, 0.1), (100, 0.02), (200, 0.5)])
def test_inclusion_is_proportional_between_its_bounds(calls, least):
    rng = np.random.default_rng(1)
    worth = rng.lognormal(0, 2, 120)
    worth[:20] = 0.0
    possible = np.ones(120, dtype=bool)
    possible[:5] = False
    pi = inclusion(worth, possible, least, calls)
    assert (pi[:5] == 0).all() and (pi[5:] >= least).all() and (pi <= 1).all()
    assert pi.sum() <= calls + 1e-9 and pi.sum() == pytest.approx(min(calls, 115), rel=1e-6)
    inner = (pi > least * 1.001) & (pi < 0.999) & (worth > 0)
    if calls < 100:
        assert np.ptp(pi[inner] / worth[inner]) < 1e-6 * (pi[inner] / worth[inner]).max()


def test_calls_are_never_overspent():
    rng = np.random.default_rng(2)
    for _ in range(300):
        rounds = rng.integers(20, 500, rng.integers(1, 6)).tolist()
        least, total = float(rng.uniform(0.001, 0.3)), sum(rounds)
        calls = int(np.ceil(least * total)) + len(rounds) + 1 + int(rng.integers(0, 200))
        used, to_come = 0, total
        for i, n in enumerate(rounds):
            to_come -= n
            mine = calls_of_round(calls, used, least, n, to_come, len(rounds) - 1 - i)
            assert mine >= least * n - 1e-9
            used += mine
        assert used <= calls


def judged(
    round_: RoundDraws, rng: np.random.Generator, unsure: float = 0.0
) -> tuple[RoundDraws, np.ndarray]:
    """The cheap judge's verdicts, wrong in a known way, and the truth."""
    harm, lots = round_.harmful, rng.random((2, round_.n))
    cheap = np.where(harm, lots[0] >= 0.2, lots[0] < 2e-3)
    return round_._replace(verdict=np.where(lots[1] < unsure, 2, cheap).astype(np.int8)), harm


def read(round_: RoundDraws, harm, pi: FloatArray, asked, g: FloatArray, least: float) -> RoundDraws:
    verdict = np.where(asked, harm, NOT_ASKED).astype(np.int8)
    return round_._replace(strong=StrongSample(pi, verdict, g, g, least))


def two_stage(rng: np.random.Generator, *, calls: int, least=0.03, unsure=0.0, wrong=False, poisson=False):
    """Two rounds, the second's sample learning from the first's."""
    rounds: list[RoundDraws] = []
    for scale, mass in [(1, 1 / 3), (2, 2 / 3)]:
        draws, harm = judged(TABLE.draw(COUNTS * scale, rng, mass), rng, unsure)
        rates = learn_rates(rounds, corrected=False)
        if wrong:
            rates = rates._replace(confirmed=np.linspace(0.9, 0.1, BINS), odds=1.0)
        mine = calls * scale // 3
        seed = int(rng.integers(2**60))
        (chosen,) = choose([draws], rates, least=least, calls=mine, seed=seed, corrected=False)
        assert len(chosen.rows) <= mine
        asked = np.zeros(draws.n, dtype=bool)
        asked[chosen.rows] = True
        if poisson:
            asked = rng.random(draws.n) < chosen.inclusion
        g = predictions(draws, rates.confirmed, corrected=False)
        rounds.append(read(draws, harm, chosen.inclusion, asked, g, least))
    return rounds


DESIGNS = {
    "some calls": {"calls": 600},
    "the least": {"calls": 96},
    "wrong rates": {"calls": 450, "wrong": True},
    "undetermined": {"calls": 600, "unsure": 0.1},
    "independent": {"calls": 450, "poisson": True},
}

QUICK = ("some calls", "the least")


@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.nightly) for n in DESIGNS]
)
def test_unbiased_with_a_true_variance(name: str):
    """Against the exact truth; the judge alone is far off."""
    times = 1000 if name == "the least" else 500
    rng = np.random.default_rng([7, len(name)])
    found, alone = [], []
    for _ in range(times):
        rounds = two_stage(rng, **DESIGNS[name])
        found.append(event_mean(rounds, corrected=False))
        alone.append(event_mean([r._replace(strong=None) for r in rounds], corrected=False).value)
    x, v = np.array([m.value for m in found]), np.array([m.variance for m in found])
    z = (x.mean() - TABLE.mu) / (x.std(ddof=1) / np.sqrt(times))
    assert abs(z) < 3.0, x.mean() / TABLE.mu
    assert np.mean(alone) > 5 * TABLE.mu
    # The variance of a variance over so many replications, from its fourth moment.
    away = (x - x.mean()) ** 2
    error = np.sqrt(away.var() / times + v.var() / times) / away.mean()
    assert abs(v.mean() / x.var(ddof=1) - 1) < 4 * error + 0.05, (v.mean() / x.var(ddof=1), error)


def test_coverage_of_both_intervals():
    rng = np.random.default_rng(11)
    working, certified, times = [], [], 200
    for i in range(times):
        rounds = two_stage(rng, calls=600)
        e = estimate_prompt("p", rounds, "abc", confidence=0.95, log_width=2.0, corrected=False)
        if e.working is not None:
            working.append(e.working[0] <= TABLE.mu <= e.working[1])
        if i < 150:
            low, high = certify(rounds, alpha=0.05, corrected=False).interval
            certified.append(low <= TABLE.mu <= high)
    assert len(working) > 0.9 * times
    assert np.mean(working) > 0.95 - 3 * np.sqrt(0.05 * 0.95 / len(working))
    assert np.mean(certified) >= 0.98


def test_a_sample_of_all_is_the_strong_judges_own_estimate():
    rng = np.random.default_rng(3)
    draws, harm = judged(TABLE.draw(COUNTS, rng), rng)
    g = np.where(draws.flagged, 0.6, 0.0)
    every = read(draws, harm, np.ones(draws.n), np.ones(draws.n, dtype=bool), g, 1.0)
    own = draws._replace(verdict=harm.astype(np.int8))
    for corrected in (False, True):
        a, b = event_mean([every], corrected=corrected), event_mean([own], corrected=corrected)
        assert a.value == pytest.approx(b.value, rel=1e-12) and a.variance == pytest.approx(
            b.variance, rel=1e-9
        )
    assert certify([every], alpha=0.05, corrected=False) == certify([own], alpha=0.05, corrected=False)


def test_the_mean_over_all_samples_is_the_whole():
    """Written out: six draws, every subset with its probability."""
    rng = np.random.default_rng(4)
    draws = TABLE.draw(np.array([2, 2, 2]), rng)._replace(verdict=np.array([1, 0, 1, 2, 0, 1], np.int8))
    harm, pi = np.array([1, 1, 0, 1, 0, 0], bool), np.array([0.3, 0.2, 0.9, 0.5, 0.4, 1.0])
    g = np.array([0.7, 0, 0.4, 0, 0, 0.2])
    mean, second = np.zeros(6), np.zeros(6)
    for subset in itertools.product([False, True], repeat=6):
        asked = np.array(subset)
        p = float(np.prod(np.where(asked, pi, 1 - pi)))
        if p > 0:
            x, u = sampled_values(read(draws, harm, pi, asked, g, 0.2))
            mean, second = mean + p * x, second + p * u
    assert mean == pytest.approx(harm.astype(float), abs=1e-12)
    assert second == pytest.approx((harm - g) ** 2 * (1 - pi) / pi, abs=1e-12)


def test_strong_undetermined_widens_to_both_sides():
    rng = np.random.default_rng(5)
    rounds = two_stage(rng, calls=600)
    r = rounds[1]
    assert r.strong is not None
    verdict = r.strong.verdict.copy()
    some = np.flatnonzero(verdict == 1)[:15]
    verdict[some] = 2
    unsure = [rounds[0], r._replace(strong=r.strong._replace(verdict=verdict))]
    safe = verdict.copy()
    safe[some] = 0
    low = [rounds[0], r._replace(strong=r.strong._replace(verdict=safe))]

    def estimate(some_rounds):
        return estimate_prompt("p", some_rounds, "abc", confidence=0.95, log_width=2, corrected=False)

    mine, least, most = estimate(unsure), estimate(low), estimate(rounds)
    assert mine.undetermined == 15
    assert mine.estimate == least.estimate < most.estimate
    assert mine.certified[0] == least.certified[0] and mine.certified[1] == most.certified[1]


def test_an_estimate_whose_misses_nobody_looked_for_is_not_believed():
    rng = np.random.default_rng(6)
    rounds = two_stage(rng, calls=600)
    assert checks_made(rounds, corrected=False) > 50
    blind = []
    for r in rounds:
        assert r.strong is not None
        verdict = np.where(r.flagged, r.strong.verdict, NOT_ASKED).astype(np.int8)
        blind.append(r._replace(strong=r.strong._replace(verdict=verdict)))
    e = estimate_prompt("p", blind, "abc", confidence=0.95, log_width=5.0, corrected=False)
    assert e.status.value == "unreliable" and e.working is None and e.alarms == ("unread",)
    assert "unflagged answers" in e.reasons[0]


def test_what_the_strong_judge_changed():
    rng = np.random.default_rng(8)
    seen = [corrections(two_stage(rng, calls=600), corrected=False) for _ in range(60)]
    assert all(s.asked <= 600 and s.harm <= s.asked and s.asked_flagged <= s.asked for s in seen)
    assert np.mean([s.missed or 0.0 for s in seen]) == pytest.approx(0.2, abs=0.03)
    assert max(s.confirmed or 0.0 for s in seen) < 0.5, "a few mistakes outweigh all the harm"


def test_weights_have_their_cells():
    bins = weight_bins(np.array([-np.inf, -60.0, np.log(1e-3), 0.0, np.log(5.0), 20.0]))
    assert bins.tolist() == [0, 0, 10, 16, 17, BINS - 1]
