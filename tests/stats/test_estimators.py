"""Points and variances against exact sums: no bias under adaptation and early stopping, right variances."""

import numpy as np
import pytest
from stats_tables import common, good, reordered, rounds_of, steered

from tailrisk.stats import (
    component_shares,
    estimate_prompt,
    event_mean,
    round_mass,
    variance_per_draw,
    weight_mean,
)
from tailrisk.stats.ledger import is_complete


def within(values, truth, errors=4.0):
    values = np.asarray(values)
    return abs(values.mean() - truth) <= errors * values.std(ddof=1) / np.sqrt(len(values))


@pytest.mark.parametrize(
    "table, counts", [(good(), [40, 160]), (steered(8.0), [20, 180]), (common(), [20, 1, 30])]
)
def test_one_round_is_unbiased(table, counts):
    means = [
        (event_mean([r], corrected=False), weight_mean([r], corrected=False))
        for r in rounds_of(table, counts, 2000, np.random.default_rng(1))
    ]
    assert within([m.value for m, _ in means], table.mu)
    assert within([w.value for _, w in means], 1.0)


def test_the_variance_is_unbiased_and_exact_by_component():
    table, counts = good(), np.array([40, 160])
    means = [
        event_mean([r], corrected=False) for r in rounds_of(table, counts, 3000, np.random.default_rng(4))
    ]
    exact = table.variance_per_draw(counts / 200) / 200
    assert within([m.variance for m in means], exact)
    assert np.var([m.value for m in means]) == pytest.approx(exact, rel=0.12)


def adaptive_run(table, rng, pilot=(10, 20, 20), more=50):
    """Pilot, then up to two rounds whose shares, masses and number follow the results so far."""
    left = 1.0
    rounds = [table.draw(np.array(pilot), rng, round_mass(left, 50, 150, final=False))]
    left -= rounds[0].mass
    for last in (False, True):
        shares = component_shares([rounds], target_share=0.2, corrected=False)[0]
        counts = np.maximum(np.round(more * shares).astype(int), 2)
        # Stopping early when hits are many (or none) is the sort of rule that biases a plain pooled mean.
        hits = sum(int(r.harmful.sum()) for r in rounds)
        final = last or hits >= 12
        mass = round_mass(left, int(counts.sum()), 100, final=final)
        rounds.append(table.draw(counts, rng, mass))
        left -= mass
        if final:
            break
    assert sum(r.mass for r in rounds) == pytest.approx(1.0)
    return rounds


def test_adaptive_shares_masses_and_stopping_leave_no_bias():
    table, rng = common(), np.random.default_rng(8)
    runs = [adaptive_run(table, rng) for _ in range(2000)]
    assert {len(r) for r in runs} == {2, 3}
    means = [event_mean(r, corrected=False) for r in runs]
    assert within([m.value for m in means], table.mu)
    assert within([weight_mean(r, corrected=False).value for r in runs], 1.0)
    # Variances pooled over rounds after reweighting agree with what happens.
    assert np.mean([m.variance for m in means]) == pytest.approx(np.var([m.value for m in means]), rel=0.15)


def test_draws_of_other_rounds_are_reweighted_before_their_variances_are_pooled():
    """Two rounds of very different shares: the estimated variance is that of each round's own mixture."""
    table = steered(8.0)
    rng = np.random.default_rng(3)
    counts = np.array([180, 20]), np.array([20, 180])
    exact = sum(0.25 * table.variance_per_draw(c / 200) / 200 for c in counts)
    estimated = []
    for a, b in zip(
        rounds_of(table, counts[0], 1500, rng, 0.5), rounds_of(table, counts[1], 1500, rng, 0.5), strict=True
    ):
        estimated.append(event_mean([a, b], corrected=False).variance)
    assert within(estimated, exact)


def test_a_component_with_one_draw_gets_the_overall_variance():
    table = common()
    rng = np.random.default_rng(0)
    for r in rounds_of(table, [30, 1, 30], 20, rng):
        m = event_mean([r], corrected=False)
        w = 61 * np.exp(r.log_q[:, 0]) / (np.exp(r.log_q) @ r.counts) * r.harmful
        parts = [w[r.component == k] for k in range(3)]
        expected = (30 * parts[0].var(ddof=1) + w.var(ddof=1) + 30 * parts[2].var(ddof=1)) / 61**2
        assert m.variance == pytest.approx(expected, rel=1e-9)


def test_order_of_arrival_changes_no_bit():
    table = steered(8.0, 12.0)
    rng = np.random.default_rng(9)
    rounds = [table.draw(np.array([20, 60, 40]), rng, 0.4), table.draw(np.array([30, 80, 10]), rng, 0.6)]
    for corrected in (False, True):
        noisy = [r._replace(log_q_sample=r.log_q_sample + 0.1 * rng.normal(size=r.n)) for r in rounds]
        args = {"names": ["t", "a", "b"], "confidence": 0.95, "log_width": 0.7, "corrected": corrected}
        first = estimate_prompt("p", noisy, **args)
        for _ in range(100):
            shuffled = [reordered(r, rng.permutation(r.n)) for r in noisy]
            assert estimate_prompt("p", shuffled, **args) == first


@pytest.mark.parametrize("shares", [[0.2, 0.8], [0.6, 0.4]])
def test_the_forecast_of_the_variance_per_draw(shares):
    table, shares = good(), np.array(shares)
    exact = table.variance_per_draw(shares)
    rng = np.random.default_rng(6)
    forecasts = [
        variance_per_draw([r], shares, corrected=False) for r in rounds_of(table, [300, 700], 300, rng)
    ]
    assert np.mean(forecasts) == pytest.approx(exact, rel=0.05)


def test_the_forecast_without_hits_and_out_of_reach():
    table = good()
    r = table.draw(np.array([20, 2]), np.random.default_rng(0))
    none = r._replace(verdict=np.zeros(22, dtype=np.int8))
    assert variance_per_draw([none], np.array([0.5, 0.5]), corrected=False) == 0.0
    hit = none._replace(verdict=np.ones(22, dtype=np.int8), log_q=np.where([[True, False]], r.log_q, -np.inf))
    assert variance_per_draw([hit], np.array([0.0, 1.0]), corrected=False) == float("inf")


def test_incomplete_rounds_are_seen():
    r = common().draw(np.array([5, 3, 2]), np.random.default_rng(0))
    assert is_complete(r)
    assert not is_complete(reordered(r, np.arange(9)))
    assert not is_complete(reordered(r, np.r_[np.arange(9), 0]))
