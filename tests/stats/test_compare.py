"""Two audits of the same prompts: the numbers by hand, and how often they are wrong on worlds with a known truth."""

from __future__ import annotations

import dataclasses
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import t as student

from tailrisk.records import Status
from tailrisk.stats import estimate_prompt
from tailrisk.stats.compare import FEWEST, OVERALL_SHARE, Answer, Basis, compare
from tailrisk.stats.judging import Confusion
from tailrisk.stats.meanchange import random_effects, welch
from tailrisk.stats.sides import Side, Working

sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "benchmarks"))

import compare as study
from compare import BLIND, Design, audit, world

ROUNDS = (64, 128, 256)


def side(p: float, seed: int, rounds=ROUNDS, uneven: float = 0.7) -> Side:
    return audit(world(p, uneven, 3), rounds, np.random.default_rng(seed))


def failed(s: Side) -> Side:
    return dataclasses.replace(
        s, working=None, estimate=dataclasses.replace(s.estimate, status=Status.FAILED)
    )


def test_a_side_has_the_intervals_of_its_estimate():
    s = side(1e-3, 1)
    e = s.estimate
    assert e.working is not None and s.interval(0.05) == pytest.approx(e.working, rel=1e-12)
    blind = side(BLIND, 1)
    assert blind.estimate.working is None and blind.interval(0.05) == blind.estimate.certified
    assert blind.interval(0.01)[1] > blind.interval(0.05)[1]


def test_undetermined_answers_are_safe_below_and_harm_above():
    rounds = list(side(1e-2, 5).rounds)
    rng = np.random.default_rng(0)
    verdict = rounds[2].verdict.copy()
    verdict[rng.choice(np.flatnonzero(rounds[2].component == 0), 3, replace=False)] = 2
    rounds[2] = rounds[2]._replace(verdict=verdict)
    e = estimate_prompt("p", rounds, study.NAMES, confidence=0.95, log_width=5.0, corrected=False)
    s = Side.of(e, rounds, corrected=False)
    assert e.undetermined == 3 and s.working is not None and e.working is not None
    assert s.working.high[0] > s.working.low[0] == e.estimate
    assert s.interval(0.05) == pytest.approx(e.working, rel=1e-12)
    # Against the same run with all settled: B's lower ratio takes the fewest, its upper one the most harm.
    plain = side(1e-2, 6)
    (c,) = compare([(plain, s)]).prompts
    (other,) = compare(
        [(plain, dataclasses.replace(s, working=dataclasses.replace(s.working, high=s.working.low)))]
    ).prompts
    assert c.ratio.interval[0] == other.ratio.interval[0] and c.ratio.interval[1] > other.ratio.interval[1]


def test_the_ratio_and_the_difference_of_two_working_estimates_by_hand():
    a, b = side(1e-3, 1), side(3e-3, 2)
    (c,) = compare([(a, b)]).prompts
    (x, sx), (y, sy) = a.working.low, b.working.low  # type: ignore[union-attr]
    va, vb = (sx / x) ** 2, (sy / y) ** 2
    df = (va + vb) ** 2 / (va**2 / a.working.df + vb**2 / b.working.df)  # type: ignore[union-attr]
    assert df == pytest.approx(welch([va, vb], [a.estimate.ess - 1, b.estimate.ess - 1]))
    half = student.ppf(0.975, df) * math.sqrt(va + vb)
    assert c.basis is Basis.WORKING and c.ratio.value == pytest.approx(y / x)
    assert c.ratio.interval == pytest.approx((y / x * math.exp(-half), y / x * math.exp(half)))
    assert c.ratio.simultaneous == pytest.approx(c.ratio.interval), "one prompt has all of alpha"
    assert c.p == pytest.approx(2 * student.sf(math.log(y / x) / math.sqrt(va + vb), df))
    (al, ah), (bl, bh) = a.estimate.working, b.estimate.working  # type: ignore[misc]
    assert c.difference.value == pytest.approx(y - x)
    assert c.difference.interval == pytest.approx(
        (y - x - math.hypot(y - bl, ah - x), y - x + math.hypot(bh - y, x - al))
    )
    assert c.answer is Answer.WORSE
    assert compare([(b, a)]).prompts[0].answer is Answer.BETTER


def test_with_one_certified_side_the_ends_are_taken_each_with_half_of_alpha():
    """Nothing is found in A, and B is found often: B is many times A, and no ratio is written."""
    a, b = side(BLIND, 1), side(0.4, 2)
    (c,) = compare([(a, b)]).prompts
    (low_a, high_a), (low_b, high_b) = a.interval(0.025), b.interval(0.025)
    assert low_a == 0.0
    assert c.basis is Basis.MIXED and c.ratio.value is None and c.difference.value is None
    assert c.ratio.interval == pytest.approx((low_b / high_a, math.inf))
    assert c.difference.interval == pytest.approx((low_b - high_a, high_b - low_a))
    assert c.answer is Answer.WORSE and c.ratio.interval[0] > 3 and c.p <= 0.05
    back = compare([(b, a)]).prompts[0]
    assert back.answer is Answer.BETTER and back.ratio.interval[0] == 0.0
    assert back.ratio.interval[1] == pytest.approx(1 / c.ratio.interval[0])


def test_what_is_below_the_resolution_has_no_ratio_and_no_verdict():
    a, b = side(BLIND, 1), side(BLIND, 2)
    (c,) = compare([(a, b)]).prompts
    assert c.basis is Basis.CERTIFIED and c.answer is Answer.UNTOLD
    assert c.ratio.value is None and c.ratio.interval == (0.0, math.inf) and c.p == 1.0
    (mixed,) = compare([(a, side(1e-4, 3))]).prompts
    assert mixed.answer is Answer.UNTOLD and mixed.ratio.value is None


def test_a_failed_prompt_says_nothing_and_an_unreliable_one_has_certified_ends():
    a, b = side(1e-3, 1), side(0.3, 2)
    (c,) = compare([(failed(a), b)]).prompts
    assert (c.basis, c.answer, c.p) == (Basis.FAILED, Answer.UNTOLD, 1.0)
    assert c.ratio.interval == (0.0, math.inf) and c.difference.interval == (-1.0, 1.0)
    unreliable = dataclasses.replace(a, working=None)
    (c,) = compare([(unreliable, b)]).prompts
    assert c.basis is Basis.MIXED and c.ratio.value is None
    assert c.ratio.interval[1] == pytest.approx(b.interval(0.025)[1] / a._certified(0.025)[0])


def test_the_error_of_the_judge_goes_into_the_ends():
    judge = Confusion(95, 5, 0, 10, 990, 0)
    a, b = (dataclasses.replace(side(p, i), judge=judge) for i, p in enumerate((0.05, 0.4)))
    (c,) = compare([(a, b)]).prompts
    assert c.basis is Basis.WORKING and c.ratio.value is None, "no point: the ends carry the judge's error"
    low, high = a.interval(0.05)
    assert low < side(0.05, 0).interval(0.05)[0], "false positives are taken off at the lower end"
    assert c.answer is Answer.WORSE
    few = dataclasses.replace(side(1e-3, 3), judge=judge)
    assert few.interval(0.05)[0] == 0.0 and high < few.interval(0.05)[1] * 1e3
    (c,) = compare([(few, dataclasses.replace(side(3e-3, 4), judge=judge))]).prompts
    assert c.answer is Answer.UNTOLD, "under the judge's resolution"


def test_a_margin_is_met_by_the_simultaneous_upper_end():
    pairs = [(side(0.1, i), side(0.1, i + 50)) for i in range(4)]
    wide = compare(pairs, margin=2.0)
    assert all(c.within == (c.ratio.simultaneous[1] <= 2.0) for c in wide.prompts) and all(
        c.within for c in wide.prompts
    )
    assert not any(c.within for c in compare(pairs, margin=1.01).prompts)
    assert all(c.within is None for c in compare(pairs).prompts)
    assert not compare([(side(BLIND, 1), side(BLIND, 2))], margin=100.0).prompts[0].within


def test_simultaneous_intervals_share_alpha_and_agree_with_the_first_step_of_holm():
    pairs = [(side(1e-2, i), side(1.6e-2, i + 50)) for i in range(6)]
    result = compare(pairs)
    shared = 0.05 * (1 - 2 * OVERALL_SHARE) / 6
    first = result.prompts[0]
    assert first.ratio.interval[0] > first.ratio.simultaneous[0]
    for c in result.prompts:
        apart = c.ratio.simultaneous[0] > 1 or c.ratio.simultaneous[1] < 1
        assert apart == (c.p <= shared)
        assert not apart or c.answer in (Answer.WORSE, Answer.BETTER)
    assert result.count(Answer.WORSE) >= sum(c.p <= shared for c in result.prompts)


def test_the_whole_needs_three_prompts_that_may_be_quoted():
    pairs = [(side(1e-2, i), side(1e-1, i + 50)) for i in range(FEWEST)]
    result = compare(pairs)
    assert result.ratio is not None and result.difference is not None and result.worse
    assert result.ratio.answer is Answer.WORSE is result.difference.answer
    assert 5 < (result.ratio.change.value or 0) < 20 and result.ratio.prompts == FEWEST
    assert compare(pairs[:2]).ratio is None
    blind = compare([*pairs[:2], (side(BLIND, 8), side(BLIND, 9))])
    assert blind.ratio is None and len(blind.prompts) == 3
    assert not compare([]).worse


def test_random_effects_by_hand():
    """Equal variances: the plain mean, and the variance between is what is left of the spread."""
    values, v = np.array([0.0, 1.0, 2.0, 5.0]), np.full(4, 0.25)
    (mean, se, df), between = random_effects(values, v)
    assert (mean, df) == (2.0, 3.0)
    assert between**2 == pytest.approx(values.var(ddof=1) - 0.25)
    assert se == pytest.approx(math.sqrt(values.var(ddof=1) / 4))
    (mean, se, _), between = random_effects(np.array([1.0, 1.01, 0.99]), np.full(3, 0.25))
    assert between == 0.0 and se == pytest.approx(0.5 / math.sqrt(3)), "never below the error of the draws"


def test_small_samples_use_students_t():
    """Two sides of ESS 3: Welch's degrees of freedom are 2 + 2 where the errors are equal, 2 where one has all."""
    s = side(0.05, 1)
    low, high = (Working(low=(0.05, e), high=(0.05, e), df=2.0) for e in (1e-9, 0.01))
    for a, df, error in ((high, 4.0, 0.2 * math.sqrt(2)), (low, 2.0, 0.2)):
        pair = dataclasses.replace(s, working=a), dataclasses.replace(s, working=high)
        (c,) = compare([pair]).prompts
        width = math.log(c.ratio.interval[1] / c.ratio.interval[0])
        assert width == pytest.approx(2 * student.ppf(0.975, df) * error, rel=1e-6)


FEW = (0.1, 1e-2, 1e-3, 1e-4, 1e-5)


def test_an_audit_against_itself_shows_nothing_in_95_of_100_pairs_and_its_intervals_hold():
    """Familywise: a wrong verdict on any of six prompts or on the whole counts."""
    seen = study.replicate(Design("null", probabilities=FEW, blind=1), 100, seed=11)
    assert seen["wrong_any"] <= 0.05
    assert seen["quoted"] > 0.7
    assert seen["ratio_coverage"] > 0.95 - 3 * math.sqrt(0.05 * 0.95 / 500)
    assert seen["difference_coverage"] > 0.95 - 3 * math.sqrt(0.05 * 0.95 / 500)
    assert seen["simultaneous_ratios"] >= 0.9 and seen["ends_coverage"] == 1.0


def test_small_effective_samples_are_covered_too():
    seen = study.replicate(
        Design("small", probabilities=FEW, blind=1, rounds=(24, 24, 24), uneven=1.0), 40, seed=3
    )
    assert 0.3 < seen["quoted"] < 0.95, "many estimates are just good enough to be quoted"
    assert seen["ratio_coverage"] > 0.95 - 3 * math.sqrt(0.05 * 0.95 / 100)
    assert seen["ends_coverage"] >= 0.97 and seen["wrong_any"] <= 0.1


@pytest.mark.parametrize(("factor", "least"), [(1.5, 0.3), (3.0, 0.97), (10.0, 0.97)])
def test_changes_are_found_and_nothing_else(factor, least):
    design = Design(
        "power", factors=(factor, 1.0), probabilities=(0.03, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6), blind=0
    )
    seen = study.replicate(design, 10, seed=5)
    assert seen["power"] >= least
    assert seen["wrong_prompt"] <= 0.2
