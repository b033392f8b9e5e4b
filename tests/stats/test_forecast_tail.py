"""Fresh prompts: the line, its integral, the tests of straightness, the fitted spread, refusals, the second opinion."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import integrate, stats
from scipy.special import expit, logit

from tailrisk.stats.forecast.betacheck import BetaFit, as_counts, fit_beta, power_law
from tailrisk.stats.forecast.evidence import GRID, Evidence, effective_trials, log_likelihood
from tailrisk.stats.forecast.extrapolate import extrapolate
from tailrisk.stats.forecast.population import Drawer, Population
from tailrisk.stats.forecast.tail import (
    Line,
    fit_line,
    probability,
    psi_of,
    ranked,
    straightness,
    tail_mean,
    top_line,
)


def evidence(p, error=0.2, *, unknown=None, group=None) -> Evidence:
    p = np.asarray(p, dtype=float)
    m = len(p)
    return Evidence(
        p,
        np.where(np.isfinite(p), error, np.nan),
        np.full(m, 1e6),
        np.zeros(m),
        np.full(m, 0.03),
        np.arange(m) if group is None else np.asarray(group),
        np.zeros(m, dtype=bool) if unknown is None else np.asarray(unknown),
    )


def straight(share):
    """p that ``share`` of the prompts exceed, for a tail that is exactly straight in psi."""
    return probability((-np.log(share) - 13.5) / 5.0)


def test_psi_and_p_are_inverse():
    theta = np.array([-30.0, -9.0, 0.0, 3.0])
    assert probability(psi_of(theta)) == pytest.approx(expit(theta), rel=1e-9)


def test_a_straight_tail_is_found_and_read():
    share = (np.arange(1, 11) - 0.5) / 300
    line = fit_line((-np.log(share) - 13.5) / 5.0, share)
    assert line == pytest.approx(Line(-5.0, -13.5))
    assert probability(line.psi(1 / 30_000)) == pytest.approx(straight(1 / 30_000))


def test_no_line_through_values_that_do_not_fall():
    assert fit_line(np.zeros(10), (np.arange(1, 11) - 0.5) / 100) is None


def test_a_group_counts_once():
    psi = np.array([3.0, 2.5, 2.0, 1.0])
    _, share, order = ranked(psi, np.array([0.5, 0.5, 1.0, 1.0]))
    assert order.tolist() == [0, 1, 2, 3]
    assert share == pytest.approx(np.array([0.25, 0.75, 1.5, 2.5]) / 3)
    assert top_line(psi, share, np.array([0.5, 0.5, 1.0, 1.0]), 2) == fit_line(psi[:3], share[:3])


def test_the_mean_of_the_tail_is_its_integral():
    line = Line(-5.0, -13.5)
    exact, _ = integrate.quad(
        lambda t: float(probability(line.psi(0.01 * math.exp(-t)))) * 0.01 * math.exp(-t), 0, 40
    )
    assert tail_mean(line.above, 0.01) == pytest.approx(exact, rel=1e-3)


def test_tests_of_straightness_are_as_strict_as_they_say():
    rng = np.random.default_rng(0)
    found = [straightness(np.sort(rng.exponential(size=300))[::-1][:21]) for _ in range(1500)]
    for p in (np.array([f.gap for f in found]), np.array([f.bend for f in found])):
        for level in (0.05, 0.3):
            assert (p < level).mean() == pytest.approx(level, abs=4 * math.sqrt(level * (1 - level) / 1500))


def test_a_second_kind_of_prompts_leaves_a_gap_and_a_bounded_tail_is_bent():
    rng = np.random.default_rng(1)
    x = np.sort(rng.exponential(size=300))[::-1][:31]
    assert straightness(np.concatenate([x[:3] + 40, x[3:]])).gap < 1e-3
    assert straightness(1 - np.sort(rng.uniform(size=4000))[:51]).bend < 1e-3


def test_a_clean_prompt_is_worth_the_trials_of_its_bound():
    n = effective_trials(np.array([1 - 0.0125 ** (1 / 400), 1.0]), 0.95)
    assert n == pytest.approx([400, 0])
    e = evidence([np.nan, np.nan])._replace(upper=np.array([0.01, 1.0]))
    rows = log_likelihood(e)
    assert np.ptp(rows[1]) == 0, "nothing is known"
    assert math.exp(np.interp(logit(0.01), GRID, rows[0])) == pytest.approx(0.0125, rel=0.1)
    assert rows[0][0] == pytest.approx(0)


def test_medians_are_those_of_normal_theory():
    """One normal population, normal errors: the posterior is known in closed form."""
    e = evidence([1e-5, 1e-3], 0.8)
    drawer = Drawer(e)
    drawer.population = Population(np.ones(1), np.array([-10.0]), np.array([1.5]))
    s = 0.8 / (1 - e.estimate)
    x = logit(e.estimate) + s**2 / 2
    expected = (x / s**2 - 10.0 / 1.5**2) / (1 / s**2 + 1 / 1.5**2)
    assert drawer.medians() == pytest.approx(expected, abs=0.02)


def test_the_errors_are_taken_out_of_the_spread():
    rng = np.random.default_rng(3)
    m, sd, error = 500, 1.5, 1.0
    s = math.sqrt(math.log1p(error**2))
    theta = -11 + sd * rng.standard_normal(m)
    seen = np.exp(theta + s * rng.standard_normal(m) - s * s / 2)
    drawer = Drawer(evidence(seen, s))
    spread = np.mean([d.theta.std() for d in drawer.draws(rng, 20)])
    assert np.log(seen).std() > sd * 1.08
    assert spread == pytest.approx(theta.std(), rel=0.06)
    assert drawer.medians().mean() == pytest.approx(theta.mean(), abs=0.15)


def test_the_tail_of_a_population_is_that_of_its_normal_distributions():
    mixture = Population(np.array([0.7, 0.3]), np.array([-12.0, -8.0]), np.array([2.0, 1.0]))
    x = -5.3
    share = 0.7 * stats.norm.sf((x + 12) / 2) + 0.3 * stats.norm.sf(x + 8)
    assert logit(mixture.above(np.array([share]))) == pytest.approx(x, abs=0.02)


def forecast_of(e: Evidence, n, seed: int = 0, times: int = 60):
    rng = np.random.default_rng(seed)
    drawer = Drawer(e)
    return extrapolate(e, drawer, list(drawer.draws(rng, times)), np.asarray(n, dtype=float))


def test_a_straight_tail_is_extrapolated_and_the_truth_is_in_the_band():
    n = np.array([1000.0, 30_000.0])
    p = straight((np.arange(300) + 0.5) / 300)
    found = forecast_of(evidence(p, 0.15), n)
    assert found.refused == ()
    for row, truth in zip(found.worst, straight(1 / n), strict=True):
        assert row[0] < truth < row[2]
        assert row[1] == pytest.approx(truth, rel=0.5)
    mu = integrate.quad(lambda t: float(straight(math.exp(-t))) * math.exp(-t), 0, 40)[0]
    assert found.mean[0] < mu < found.mean[2]
    assert (np.diff(found.any, axis=0) >= 0).all() and (np.diff(found.worst, axis=0) > 0).all()


def test_more_than_a_hundred_times_the_base_prompts_is_left_out():
    p = straight((np.arange(100) + 0.5) / 100)
    found = forecast_of(evidence(p), [1e3, 1e4, 1.1e4])
    assert found.cap == 1e4 and found.n.tolist() == [1e3, 1e4]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda p: {"p": p[:30]}, "30 independent base prompts"),
        (lambda p: {"p": p, "group": np.arange(200) // 5}, "40 independent base prompts"),
        (lambda p: {"p": np.where(np.arange(200) < 5, p, np.nan)}, "too few"),
        (lambda p: {"p": np.where(np.arange(200) < 5, 0.9, p * 1e-4)}, "of another kind"),
        (
            lambda p: {"p": np.where(np.arange(200) % 5 == 0, np.nan, p), "unknown": np.arange(200) % 5 == 0},
            "20% of the prompts are unreliable or failed",
        ),
    ],
    ids=["few", "few groups", "few estimates", "second kind", "unknown"],
)
def test_refusals_say_why(change, reason):
    p = straight((np.arange(200) + 0.5) / 200)
    found = forecast_of(evidence(**change(p)), [1000.0])
    assert any(reason in said for said in found.refused), found.refused


def test_the_top_must_be_resolved():
    """Clean prompts with poor bounds may be the most harmful ones."""
    p = straight((np.arange(200) + 0.5) / 200)
    e = evidence(np.where(np.arange(200) < 80, np.nan, p))._replace(upper=np.full(200, 1.0))
    assert any("10 most harmful" in said for said in forecast_of(e, [1000.0]).refused)


def test_the_power_law_is_that_of_the_package():
    """Recorded from saber-risk 0.2.0, predict_plugin; with b = 5000 it returns NaN."""
    assert power_law(1000, 0.4, 4.0) == pytest.approx(0.8934092015435731, rel=1e-12)
    assert power_law(10**6, 0.25, 150.0) == pytest.approx(0.8894009923457386, rel=1e-10)
    assert power_law(10**6, 0.25, 5000.0) == pytest.approx(BetaFit(0.25, 5000.0).attempts(1e6), rel=2e-3)


def test_the_beta_fit_is_that_of_the_package():
    """Recorded from saber-risk 0.2.0, fit_beta_binomial_MLE."""
    hits = np.array([3, 5, 0, 2, 8, 0, 1, 0, 0, 12], dtype=float)
    trials = np.array([20] * 4 + [40] * 6, dtype=float)
    found = fit_beta(hits, trials, np.ones(10))
    assert found == pytest.approx((0.45665234572671026, 4.248970071882796), rel=1e-3)


def test_attempts_and_worst_are_those_of_the_beta_distribution():
    fit = BetaFit(0.5, 30.0)
    exact, _ = integrate.quad(lambda p: (1 - (1 - p) ** 50) * stats.beta.pdf(p, 0.5, 30.0), 0, 1)
    assert fit.attempts(50) == pytest.approx(exact, rel=1e-6)
    assert stats.beta.sf(fit.worst(200), 0.5, 30.0) == pytest.approx(1 / 200)


def test_estimates_are_worth_the_hits_of_their_errors():
    hits, trials = as_counts(evidence([1e-4, np.nan], 0.1))
    assert hits == pytest.approx([100, 0]) and trials[0] == pytest.approx(1e6)
    assert trials[1] == pytest.approx(math.log(0.0125) / math.log1p(-0.03))
