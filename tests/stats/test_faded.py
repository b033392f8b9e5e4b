"""Components that share their draws by lot, against exact sums: one stratum, drawn from their mixture."""

from collections import Counter

import numpy as np
import pytest
from stats_checks import unbiased
from stats_tables import Table as Laws
from stats_tables import contains_harm, log_law, reordered

from tailrisk.stats import RoundDraws, event_mean, weight_mean
from tailrisk.stats.conditional import conditional_mean
from tailrisk.stats.control import control_mean
from tailrisk.stats.diagnostics import diagnose
from tailrisk.stats.estimate import certify
from tailrisk.stats.estimators import contributions, ratio_means
from tailrisk.stats.overlap import without_component

FIXED = np.array([6, 20, 0, 0, 0])
FADED = np.array([0.0, 0.0, 0.5, 1.5, 2.0])
N = 30.0
EXPECTED = FIXED + FADED


def laws() -> Laws:
    """Of the proposals the second fixed one finds little, and two of the faded ones find the harm."""
    logs = [log_law(s, rarity=4.0) for s in (0.0, 0.5, 4.0, 1.0, 3.0)]
    return Laws(np.stack(logs, axis=1), contains_harm())


def draw(table: Laws, rng: np.random.Generator, mass: float = 1.0) -> RoundDraws:
    counts = FIXED + rng.multinomial(int(FADED.sum()), FADED / FADED.sum())
    return table.draw(counts, rng, mass)._replace(faded=FADED)


@pytest.fixture(scope="module")
def rounds() -> list[RoundDraws]:
    rng, table = np.random.default_rng(5), laws()
    return [draw(table, rng) for _ in range(6000)]


def exact_variance(table: Laws, f: np.ndarray) -> float:
    """Var of the mean of f p / q: sum over strata of their draws times the variance of one."""
    q = np.exp(table.log_q)
    x = q[:, 0] / (q @ (EXPECTED / N)) * f
    strata = [(FIXED[0], q[:, 0]), (FIXED[1], q[:, 1]), (FADED.sum(), q @ (FADED / FADED.sum()))]
    return float(sum(n * (law @ x**2 - (law @ x) ** 2) for n, law in strata) / N**2)


def test_strata_and_expected_draws(rounds):
    r = rounds[0]
    label, sizes = r.strata
    assert r.expected.tolist() == EXPECTED.tolist() and r.n == N
    assert sizes.tolist() == [6, 20, 4, 0, 0] and Counter(label.tolist()) == {0: 6, 1: 20, 2: 4}
    assert r.fixed.tolist() == [True, True, False, False, False]
    assert r.weight_bound == 5.0
    part = r.under((0, 1, 3, 4, 2))
    assert part.expected.tolist() == [6, 20, 1.5, 2, 0.5]
    assert len({tuple(x.counts.tolist()) for x in rounds}) > 10, "lots differ"


def test_the_lot_leaves_no_bias(rounds):
    table = laws()
    assert abs(unbiased([event_mean([r], corrected=False).value for r in rounds], table.mu)) <= 3
    assert abs(unbiased([weight_mean([r], corrected=False).value for r in rounds], 1.0)) <= 3
    assert abs(unbiased([control_mean([r], corrected=False).value for r in rounds], table.mu)) <= 3
    parts = contributions([rounds[0]], corrected=False).part
    assert parts.sum() == pytest.approx(event_mean([rounds[0]], corrected=False).value)
    # Weights by a mixture that the draws did not come from would be seen.
    wrong = [event_mean([r._replace(faded=FADED * 4)], corrected=False).value for r in rounds]
    assert abs(unbiased(wrong, table.mu)) > 10


def test_variances_are_those_of_the_mixture(rounds):
    table = laws()
    means = [event_mean([r], corrected=False) for r in rounds]
    exact = exact_variance(table, table.harm)
    assert np.var([m.value for m in means]) == pytest.approx(exact, rel=0.1)
    # A component met once or not at all borrows the variance of all draws, which are more unlike.
    assert np.mean([m.variance for m in means]) == pytest.approx(exact, rel=0.25)
    many = [
        event_mean([draw(table, np.random.default_rng([i, j]), 0.2) for j in range(5)], corrected=False)
        for i in range(1200)
    ]
    assert np.mean([m.variance for m in many]) == pytest.approx(exact / 5, rel=0.06)
    weights = [weight_mean([r], corrected=False) for r in rounds]
    exact = exact_variance(table, np.ones(len(table.log_q)))
    assert abs(unbiased([w.variance for w in weights], exact)) <= 3.5


def test_what_is_left_without_one_component_is_unbiased(rounds):
    table = laws()
    for k in (1, 2, 3):
        rest = [without_component([r], k) for r in rounds]
        values = np.array([event_mean(x, corrected=False).value for x in rest])
        # Not `unbiased`: without its best components an estimate scatters more than 2 % show.
        assert abs(values.mean() - table.mu) <= 3 * values.std(ddof=1) / np.sqrt(len(values)), k
        assert all(x[0].faded[k] == 0 for x in rest)
    alone = rounds[0]._replace(faded=np.where(np.arange(5) == 2, 1.0, 0.0))
    assert without_component([alone], 2)[0].faded is None


def test_ratios_of_the_faded_are_not_asked_for(rounds):
    ratios = ratio_means([rounds[0]], corrected=False)
    assert [x is None for x in ratios] == [False, False, True, True, True]
    assert abs(unbiased([ratio_means([r], corrected=False)[1].value for r in rounds[:2000]], 1.0)) <= 3
    assert diagnose(rounds[:2], corrected=False).tolerances[2:] == (0.0, 0.0, 0.0)


def test_conditional_means_and_order(rounds):
    table = laws()
    many = [r._replace(mass=0.02) for r in rounds[:50]]
    ones = conditional_mean(many, [np.ones(r.n) for r in many], corrected=False)
    assert float(ones.value) == pytest.approx(1.0)
    order = np.random.default_rng(2).permutation(30)
    assert event_mean([reordered(rounds[3], order)], corrected=False) == event_mean(
        [rounds[3]], corrected=False
    )
    certified = [certify(rounds[i : i + 3], alpha=0.05, corrected=False) for i in range(0, 900, 3)]
    covered = [low <= table.mu <= high for low, high in (c.interval for c in certified)]
    assert np.mean(covered) >= 0.95
