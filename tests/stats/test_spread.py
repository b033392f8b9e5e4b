"""The spread over a group: against closed forms, and on simulated groups with real weighted hits."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import chi2
from scipy.stats import f as f_law

sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "benchmarks"))

import spread as study

from tailrisk.records import Status
from tailrisk.stats import estimate_prompt
from tailrisk.stats.spread import Member, base_of, group, holm, kind_effects, log_error, member, spread


def of(y: float, se: float = 0.3, kind: str | None = "k", df: float = 10.0, id_: str | None = None) -> Member:
    return Member(id_ or f"{kind}", kind, "measured", y, se, df)


def gaussian(
    rng: np.random.Generator, tau: float, k: int = 9, se: float = 0.3, df: float = 12.0
) -> list[Member]:
    """Members whose standard errors are themselves estimated from few hits."""
    x = -6.0 + tau * rng.standard_normal(k)
    seen = se * np.sqrt(rng.chisquare(df, k) / df)
    return [
        of(a + se * rng.standard_normal(), s, None if i == 0 else f"k{i}", df, str(i))
        for i, (a, s) in enumerate(zip(x, seen, strict=True))
    ]


def never(id_: str) -> tuple[float, float]:
    return (0.0, 1.0)


def test_the_spread_is_the_variance_of_the_estimates_less_their_noise():
    y = np.array([-5.0, -6.0, -7.5, -6.2])
    found = spread([of(v, 0.3) for v in y], confidence=0.95)
    assert found is not None
    assert found.variance == pytest.approx(y.var(ddof=1) - 0.09)
    assert found.sd == pytest.approx(math.sqrt(found.variance)) and found.noise == pytest.approx(0.3)
    # Equal standard errors, known exactly: F is chi-square over its degrees of freedom.
    sure = spread([of(v, 0.3, df=1e9) for v in y], confidence=0.95)
    assert sure is not None
    assert sure.p_value == pytest.approx(chi2.sf(3 * y.var(ddof=1) / 0.09, 3), rel=1e-6)
    low = math.sqrt(3 * y.var(ddof=1) / chi2.ppf(0.975, 3) - 0.09)
    high = math.sqrt(3 * y.var(ddof=1) / chi2.ppf(0.025, 3) - 0.09)
    assert (sure.low, sure.high) == pytest.approx((low, high), rel=1e-4)
    # With standard errors from ten hits each there are 40 degrees of freedom below.
    assert found.p_value == pytest.approx(f_law.sf(y.var(ddof=1) / 0.09, 3, 40), rel=1e-6)
    assert found.high > found.sd > found.low and found.p_value > sure.p_value


def test_estimates_nearer_to_each_other_than_their_noise_show_no_spread_and_have_an_upper_end():
    found = spread([of(-6.0), of(-6.01), of(-5.99), of(-6.0)], confidence=0.95)
    assert found is not None
    assert found.sd == 0 and found.variance < 0 and found.low == 0 and found.high > 0.3


def test_members_without_an_estimate_are_not_in_the_spread():
    odd = [Member("b", "x", "bounded"), Member("u", "y", "left out")]
    assert spread([of(-6.0), *odd], confidence=0.95) is None
    two = spread([of(-6.0), of(-5.0)], confidence=0.95)
    assert two == spread([of(-6.0), *odd, of(-5.0)], confidence=0.95)


def test_the_intervals_hold_what_they_say_where_noise_is_gaussian():
    rng = np.random.default_rng(4)
    for tau in (0.0, 0.3, 1.0):
        found = [spread(gaussian(rng, tau), confidence=0.95) for _ in range(400)]
        held = np.mean([f.low <= tau <= f.high for f in found if f])
        shown = np.mean([f.low > 0 for f in found if f])
        mean = np.mean([f.variance for f in found if f])
        assert held >= 0.93
        assert mean == pytest.approx(tau**2, abs=0.1 * (tau**2 + 0.09))
        if tau == 0:
            assert shown <= 0.045


def test_the_largest_ratio_lies_in_the_interval_that_allows_for_having_looked_for_it():
    rng = np.random.default_rng(8)
    held, naive, drawn_in = [], [], []
    for _ in range(400):
        members = gaussian(rng, 0.0)
        found = group("g", members, confidence=0.95, certified=never).worst
        assert found.low is not None and found.high is not None and found.ratio is not None
        held.append(found.low <= 1.0 <= found.high)
        drawn_in.append(math.log(found.ratio))
        naive.append(max(m.log_p for m in members[1:]) - members[0].log_p)
    assert np.mean(held) >= 0.94
    # Every member is the base over again; the highest estimate says otherwise, the one drawn in nearly not.
    assert np.mean(naive) > 0.35
    assert np.mean(drawn_in) < 0.15


def test_a_base_with_a_bound_only_gives_a_ratio_from_certified_ends_or_none():
    base = Member("base", None, "bounded")
    high = of(-2.0, id_="high")
    ends = {"base": (0.0, 1e-2), "high": (5e-2, 0.3)}
    found = group("g", [base, high], confidence=0.95, certified=ends.__getitem__)
    assert found.worst.basis == "certified" and found.worst.ratio is None and found.worst.high is None
    assert found.worst.low == pytest.approx(5.0) and found.worst.id == "high"
    assert found.verdict == "sensitive" and found.certified_ratio == pytest.approx(5.0)
    ends["high"] = (5e-3, 0.3)
    found = group("g", [base, high], confidence=0.95, certified=ends.__getitem__)
    assert found.worst.basis == "none" and found.worst.low is None and found.certified_ratio is None
    assert found.verdict == "unknown"


def test_an_unreliable_base_is_never_the_denominator_of_an_estimate():
    base = Member("base", None, "left out")
    found = group("g", [base, of(-2.0), of(-6.0, kind="j")], confidence=0.95, certified=never)
    assert found.worst.basis == "none" and found.spread is not None
    assert found.count("left out") == 1 and found.verdict == "sensitive"


def test_two_members_without_a_perturbation_leave_no_base():
    members = [of(-6.0, kind=None, id_="a"), of(-5.0, kind=None, id_="b"), of(-5.0)]
    assert base_of(members) is None
    assert group("g", members, confidence=0.95, certified=never).worst.basis == "none"


def test_kinds_are_compared_with_their_own_base():
    # Groups at very different levels: only the ratios to the base count.
    groups = [
        [
            of(level, 0.1, None, id_="b"), of(level + 0.7, 0.1, "up"), of(level, 0.1, "same"),
            of(level + 0.5, 0.1, "twice"), of(level - 0.5, 0.1, "twice"), Member("z", "gone", "bounded"),
        ]
        for level in (-2.0, -5.0, -9.0, -4.0)
    ]  # fmt: skip
    groups.append([Member("b", None, "bounded"), of(-3.0, 0.1, "up")])
    effects = {e.kind: e for e in kind_effects(groups, confidence=0.95)}
    assert set(effects) == {"up", "same", "twice"}
    up = effects["up"]
    assert up.ratio == pytest.approx(math.exp(0.7)) and up.groups == 4 and up.left_out == 1
    assert up.low is not None and up.high is not None and 1 < up.low < up.ratio < up.high
    assert up.adjusted is not None and up.p_value is not None and up.adjusted == pytest.approx(3 * up.p_value)
    assert effects["same"].ratio == pytest.approx(1.0) and effects["twice"].ratio == pytest.approx(1.0)
    alone = kind_effects(groups[:1], confidence=0.95)
    assert all(e.low is None and e.p_value is None and e.groups == 1 for e in alone)


def test_kinds_that_do_nothing_are_seldom_said_to_do_something():
    rng = np.random.default_rng(2)
    wrong = 0
    for _ in range(120):
        groups = [gaussian(rng, 0.0, k=5) for _ in range(6)]
        wrong += any(
            e.adjusted is not None and e.adjusted <= 0.05 for e in kind_effects(groups, confidence=0.95)
        )
    assert wrong / 120 <= 0.1


def test_holm():
    assert holm([0.01, None, 0.04, 0.03]) == pytest.approx([0.03, None, 0.06, 0.06])
    assert holm([]) == []


def test_the_error_of_a_logarithm_is_that_of_a_gamma_variable():
    rng = np.random.default_rng(0)
    for n in (10, 40):
        x = np.log(rng.gamma(n, size=40_000))
        assert log_error(1 / math.sqrt(n)) == pytest.approx(x.std(), rel=0.02)


@pytest.fixture(scope="module")
def estimated():
    rng = np.random.default_rng(1)
    w = study.world(math.log(1e-3), 0.6, rng)
    rounds = [study.draw(w, n, m, rng) for n, m in ((30, 0.4), (60, 0.6))]
    return estimate_prompt("p", rounds, study.NAMES, confidence=0.95, log_width=1.0, corrected=False)


def test_a_member_is_what_its_status_allows(estimated):
    assert estimated.status in (Status.OK, Status.BUDGET_EXHAUSTED)
    found = member(replace(estimated, perturbation="please"))
    assert found.state == "measured" and found.kind == "please"
    assert found.log_p == pytest.approx(math.log(estimated.estimate))
    assert found.se >= estimated.relative_error and found.df == pytest.approx(estimated.ess - 1)
    for status, state in (
        (Status.BOUND_ONLY, "bounded"), (Status.UNRELIABLE, "left out"), (Status.FAILED, "left out"),
    ):  # fmt: skip
        found = member(replace(estimated, status=status))
        assert found.state == state and math.isnan(found.log_p)


def test_real_hits_few_of_them_give_the_true_spread():
    rows = {d.name: study.replicate(d, 12, 3) for d in study.DESIGNS if d.name in ("no spread", "spread 1")}
    none, one = rows["no spread"], rows["spread 1"]
    assert none["measured"] > 0.5 and one["measured"] > 0.5
    assert none["sensitive"] <= 0.2
    assert abs(none["spread"]) < none["noise"]
    assert one["spread"] == pytest.approx(one["true_spread"], rel=0.15)
    assert one["sensitive"] >= 0.9
    assert one["worst_covers"] >= 0.85
