"""A judge's rates against closed forms, and the coverage of the corrected intervals against a known truth."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from tailrisk.stats import judging
from tailrisk.stats.judgeerror import (
    JudgeBounds,
    corrected_interval,
    judge_bounds,
    rogan_gladen,
    sampling_confidence,
)
from tailrisk.stats.judging import Confusion, clopper_pearson


@pytest.mark.parametrize(("n", "alpha"), [(1, 0.05), (60, 0.05), (1000, 0.01)])
def test_clopper_pearson_has_its_closed_forms_at_the_ends(n, alpha):
    assert clopper_pearson(0, n, alpha) == (0.0, pytest.approx(1 - (alpha / 2) ** (1 / n), rel=1e-12))
    assert clopper_pearson(n, n, alpha) == (pytest.approx((alpha / 2) ** (1 / n), rel=1e-12), 1.0)
    assert clopper_pearson(0, 0, alpha) == (0.0, 1.0)


@pytest.mark.parametrize(("k", "n"), [(1, 10), (7, 10), (30, 1000)])
def test_clopper_pearson_inverts_the_exact_tails(k, n):
    low, high = clopper_pearson(k, n, 0.1)
    assert scipy_stats.binom.sf(k - 1, n, low) == pytest.approx(0.05, rel=1e-9)
    assert scipy_stats.binom.cdf(k, n, high) == pytest.approx(0.05, rel=1e-9)


def test_counts_by_label_and_verdict():
    labels = [True, True, True, False, False, False, False]
    assert judging.confusion(labels, [1, 0, 2, 1, 0, 0, 2]) == Confusion(1, 1, 1, 1, 2, 1)
    c = Confusion(1, 1, 1, 1, 2, 1)
    assert (c.harm, c.safe, c.settled) == (3, 4, 5)
    assert c.as_verdict(True) == Confusion(2, 1, 0, 2, 2, 0)
    assert c.as_verdict(False) == Confusion(1, 2, 0, 1, 3, 0)


def test_rates_leave_the_undetermined_out():
    assert judging.rates(Confusion(8, 2, 50, 1, 19, 70), 0.05) == judging.rates(
        Confusion(8, 2, 0, 1, 19, 0), 0.05
    )


def test_rates_of_nothing_say_nothing():
    r = judging.rates(Confusion(0, 0, 3, 0, 5, 0), 0.05)
    assert math.isnan(r.sensitivity.value) and r.sensitivity[1:] == (0.0, 1.0)
    assert math.isnan(r.kappa.value) and r.kappa[1:] == (-1.0, 1.0)
    assert judging.resolution(1.0, 0.0) == 1.0 and judging.resolution(0.0, 0.0) == 1.0


def kappa_by_table(c: Confusion) -> float:
    """Cohen's definition, from the margins of the table."""
    n = c.settled
    observed = (c.tp + c.tn) / n
    judged, labelled = (c.tp + c.fp) / n, (c.tp + c.fn) / n
    chance = judged * labelled + (1 - judged) * (1 - labelled)
    return (observed - chance) / (1 - chance)


@pytest.mark.parametrize(
    "c", [Confusion(80, 20, 0, 3, 97, 0), Confusion(5, 5, 1, 40, 60, 9), Confusion(1, 9, 0, 90, 10, 0)]
)
def test_kappa_is_that_of_the_table(c):
    assert judging.rates(c, 0.05).kappa.value == pytest.approx(kappa_by_table(c), rel=1e-12)


def test_kappa_grows_with_both_rates():
    grid = np.linspace(0.0, 1.0, 21)
    for prevalence in (0.01, 0.3, 0.5, 0.95):
        values = np.array([[judging.kappa_of(prevalence, a, b) for b in grid] for a in grid])
        inner = values[:-1, :-1]
        assert (np.diff(inner, axis=0) > -1e-12).all() and (np.diff(inner, axis=1) > -1e-12).all()


def test_half_of_what_is_flagged_at_the_resolution_is_false():
    f, s = 1e-3, 0.8
    p = judging.resolution(f, s)
    assert s * p == pytest.approx(f * (1 - p), rel=1e-12)


def test_the_threshold_curve_is_that_of_counting():
    rng = np.random.default_rng(3)
    labels = rng.random(300) < 0.4
    scores = np.round(np.clip(rng.normal(0.3 + 0.3 * labels, 0.2), 0, 1), 2)
    scores[:5] = np.nan
    curve = judging.threshold_curve(labels, scores, 0.05)
    assert 2 < len(curve) <= judging.MOST_THRESHOLDS
    there = ~np.isnan(scores)
    for point in curve:
        flagged = scores >= point.threshold
        assert point.sensitivity.value == (flagged & labels).sum() / (labels & there).sum()
        assert point.false_positive.value == (flagged & ~labels).sum() / (~labels & there).sum()
    histogram = judging.score_histogram(labels, scores)
    assert histogram.missing == 5 and histogram.edges[0] == 0.0 and histogram.edges[-1] == 1.0
    assert (histogram.harm.sum(), histogram.safe.sum()) == ((labels & there).sum(), (~labels & there).sum())


def test_scores_of_any_range_have_a_histogram():
    for scores in ([], [np.nan], [3.0, 3.0], [-700.0, 5.0], [np.inf, 1.0]):
        h = judging.score_histogram(np.ones(len(scores)), scores)
        assert h.harm.sum() + h.missing == len(scores) and (np.diff(h.edges) > 0).all()
        judging.threshold_curve(np.ones(len(scores)), scores, 0.05)


def test_agreement_of_two_judges():
    table = judging.agreement_of(np.array([0, 1, 1, 2], dtype=np.int8), [0, 1, 0, 1])
    assert table.tolist() == [[1, 0, 0], [1, 1, 0], [0, 1, 0]]


# ---- the judge's error in the number


def test_rogan_gladen_undoes_the_judge_exactly():
    for p, s, f in itertools.product([0.0, 1e-6, 0.2, 1.0], [0.6, 1.0], [0.0, 1e-3, 0.3]):
        mu = s * p + f * (1 - p)
        assert rogan_gladen(mu, s, f) == pytest.approx(p, abs=1e-15, rel=1e-9)
    assert rogan_gladen(0.1, 0.3, 0.3) is None and rogan_gladen(0.1, math.nan, 0.1) is None
    assert rogan_gladen(0.0, 0.9, 0.1) == 0.0 and rogan_gladen(1.0, 0.9, 0.1) == 1.0


def test_the_interval_holds_every_truth_that_the_bounds_allow():
    """Over a grid of (p, S, F) inside the bounds: whatever mu they make is led back to an interval with p in it."""
    bounds = JudgeBounds((0.7, 0.95), (0.01, 0.05), (0.85, 0.02))
    for s in np.linspace(*bounds.sensitivity, 6):
        for f in np.linspace(*bounds.false_positive, 6):
            for p in (0.0, 1e-4, 0.01, 0.05, 0.3, 0.9, 1.0):
                mu = s * p + f * (1 - p)
                for wide in (1.0, 1.3):
                    low, high = corrected_interval((mu / wide, min(mu * wide, 1.0)), bounds)
                    assert low - 1e-12 <= p <= high + 1e-12
    # and it is no wider than need be: both ends are reached
    low, high = corrected_interval((0.2, 0.2), bounds)
    assert low == pytest.approx((0.2 - 0.05) / (0.95 - 0.05)) and high == pytest.approx(
        (0.2 - 0.01) / (0.7 - 0.01)
    )


def test_undetermined_answers_keep_the_interval_valid():
    """mu_low without the undetermined and mu_high with them, for any share of undetermined by label."""
    bounds = JudgeBounds((0.8, 0.8), (0.02, 0.02), (0.8, 0.02))
    for d1, d0 in itertools.product([0.2, 0.7, 1.0], repeat=2):
        for p in (0.0, 1e-3, 0.05, 0.5, 1.0):
            low = 0.8 * d1 * p + 0.02 * d0 * (1 - p)
            high = low + (1 - d1) * p + (1 - d0) * (1 - p)
            found = corrected_interval((low, high), bounds)
            assert found[0] - 1e-12 <= p <= found[1] + 1e-12


def test_under_the_resolution_there_is_an_upper_end_only_and_no_false_positive_is_taken_off():
    bounds = JudgeBounds((0.8, 0.9), (1e-3, 1e-2), (0.85, 5e-3))
    assert corrected_interval((1e-2, 2e-2), bounds) == (0.0, pytest.approx(2e-2 / 0.8))
    assert corrected_interval((0.0, 1e-6), bounds) == (0.0, pytest.approx(1e-6 / 0.8))
    assert corrected_interval((0.1, 0.5), JudgeBounds((0.0, 1.0), (0.0, 1.0), (math.nan, math.nan))) == (
        0.0,
        1.0,
    )


def exact_coverage(
    p: float, s: float, f: float, n1: int, n0: int, draws: int, confidence: float
) -> tuple[float, float]:
    """Probability that the corrected interval holds p, and that its lower end is above p, summed over every outcome
    of the labelled set and of plain draws."""
    mu = s * p + f * (1 - p)
    ks, kf, kd = np.arange(n1 + 1), np.arange(n0 + 1), np.arange(draws + 1)
    ps, pf, pd = (scipy_stats.binom.pmf(k, n, q) for k, n, q in ((ks, n1, s), (kf, n0, f), (kd, draws, mu)))
    sampling = [clopper_pearson(int(k), draws, 1 - sampling_confidence(confidence)) for k in kd]
    covered = above = 0.0
    for a, b in itertools.product(ks[ps > 1e-7], kf[pf > 1e-7]):
        bounds = judge_bounds(Confusion(int(a), n1 - int(a), 0, int(b), n0 - int(b), 0), confidence)
        for k in kd[pd > 1e-7]:
            low, high = corrected_interval(sampling[k], bounds)
            weight = ps[a] * pf[b] * pd[k]
            covered += float(weight) * (low <= p <= high)
            above += float(weight) * (low > p)
    return covered, above


@pytest.mark.parametrize(
    ("p", "s", "f"),
    [(0.3, 0.9, 0.05), (0.05, 0.8, 0.02), (0.002, 0.7, 0.03), (0.0, 0.9, 0.1), (0.5, 1.0, 0.0)],
)
def test_the_corrected_interval_covers_exactly_as_promised(p, s, f):
    """No simulation: all outcomes of 25 harmful and 40 safe labels and of 60 plain draws."""
    covered, above = exact_coverage(p, s, f, 25, 40, 60, 0.9)
    assert covered >= 0.9
    assert above <= 0.05 + 1e-6, "the lower end alone"


def test_the_uncorrected_interval_does_not_cover():
    """What the correction is for: one false positive in 20 makes a plain interval miss a rare truth."""
    p, s, f, draws = 0.01, 0.8, 0.05, 2000
    mu = s * p + f * (1 - p)
    k = np.arange(draws + 1)
    weight = scipy_stats.binom.pmf(k, draws, mu)
    held = [clopper_pearson(int(i), draws, 0.1)[0] <= p for i in k[weight > 1e-9]]
    assert weight[weight > 1e-9][held].sum() < 0.05


def test_many_labels_and_draws_make_it_informative():
    counts = Confusion(tp=9000, fn=1000, u_harm=0, fp=10, tn=99_990, u_safe=0)
    bounds = judge_bounds(counts, 0.95)
    p, s, f = 0.01, 0.9, 1e-4
    mu = s * p + f * (1 - p)
    low, high = corrected_interval((mu * 0.95, mu * 1.05), bounds)
    assert low <= p <= high and high / low < 1.2
    assert bounds.resolution < 3e-4
