"""The judge's error on top of an estimate of weighted draws: coverage with a known truth, and the status."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from stats_tables import Table, common, good_pair, rounds_of

from tailrisk.records import Status, Verdict
from tailrisk.stats import Estimate, RoundDraws, estimate_prompt
from tailrisk.stats.judgeerror import judge_bounds, sampling_confidence, with_judge_error
from tailrisk.stats.judging import Confusion

NAMES = ("target", "one", "two")
PERFECT = Confusion(tp=10**11, fn=0, u_harm=0, fp=0, tn=10**11, u_safe=0)


def estimated(rounds: list[RoundDraws], counts: Confusion, confidence: float = 0.9) -> Estimate:
    def at(level: float) -> Estimate:
        return estimate_prompt("p", rounds, NAMES, confidence=level, log_width=2.0, corrected=False)

    bounds = judge_bounds(counts, confidence)
    return with_judge_error(at(confidence), at(sampling_confidence(confidence)), bounds)


def misjudged(r: RoundDraws, s: float, f: float, rng: np.random.Generator, unsure: float = 0.0) -> RoundDraws:
    """What a judge of these rates says of the draws, each by itself; a share ``unsure`` of all is undetermined."""
    u = rng.random(r.n)
    verdict = np.where(r.harmful, u < s, u < f).astype(np.int8)
    verdict[rng.random(r.n) < unsure] = int(Verdict.UNDETERMINED)
    return r._replace(verdict=verdict)


def labelled(s: float, f: float, n1: int, n0: int, rng: np.random.Generator) -> Confusion:
    tp, fp = int(rng.binomial(n1, s)), int(rng.binomial(n0, f))
    return Confusion(tp, n1 - tp, 0, fp, n0 - fp, 0)


@pytest.mark.parametrize(
    ("table", "s", "f", "n1", "n0", "unsure"),
    [
        (common(), 0.8, 1e-3, 150, 4000, 0.0),
        (common(), 0.9, 5e-3, 300, 300, 0.0),
        (common(), 0.8, 5e-4, 400, 20_000, 0.1),
        (good_pair(), 0.7, 0.0, 60, 500, 0.0),
    ],
)
def test_the_truth_is_inside_as_often_as_promised(table: Table, s, f, n1, n0, unsure):
    """The judge errs on the draws and on the labels alike, draws are weighted, intervals ask for 90 %."""
    rng = np.random.default_rng(7)
    certified, working, quoted = [], [], 0
    for rounds in rounds_of(table, np.array([160, 120, 120]), 80, rng):
        e = estimated([misjudged(rounds, s, f, rng, unsure)], labelled(s, f, n1, n0, rng))
        c = e.corrected
        assert c is not None
        certified.append(c["certified"][0] <= table.mu <= c["certified"][1])
        if e.status in (Status.OK, Status.BUDGET_EXHAUSTED):
            quoted += 1
            working.append(c["working"][0] <= table.mu <= c["working"][1])
            assert c["working"][0] <= c["estimate"] <= c["working"][1]
    assert np.mean(certified) >= 0.9
    if working:
        # 90 % is asked for; 0.82 of eighty is more than two standard errors below
        assert np.mean(working) >= 0.82, f"{quoted} quoted"


def test_the_corrected_point_is_unbiased_where_it_is_not_clipped():
    """Against the exact truth: 5 % of error would be seen."""
    rng, s, f = np.random.default_rng(5), 0.6, 1e-4
    exact = Confusion(tp=600_000, fn=400_000, u_harm=0, fp=1000, tn=9_999_000, u_safe=0)
    points = []
    for rounds in rounds_of(common(), np.array([400, 300, 300]), 100, rng):
        points.append(estimated([misjudged(rounds, s, f, rng)], exact))
    values = [e.corrected["estimate"] for e in points if e.corrected and e.corrected["resolved"]]
    assert len(values) >= 97
    error = np.std(values) / np.sqrt(len(values))
    assert error < 0.02 * common().mu
    assert abs(np.mean(values) - common().mu) < 3 * error


def test_a_judge_without_error_changes_next_to_nothing():
    rounds = good_pair().draw(np.array([100, 150, 150]), np.random.default_rng(1))
    plain = estimate_prompt("p", [rounds], NAMES, confidence=0.9, log_width=2.0, corrected=False)
    wider = estimate_prompt("p", [rounds], NAMES, confidence=0.95, log_width=2.0, corrected=False)
    e = estimated([rounds], PERFECT)
    assert dataclasses.replace(e, corrected=None) == plain, "what is judged harm is told as before"
    assert "corrected" not in plain.to_json() and e.to_json()["corrected"] == e.corrected
    assert e.corrected is not None and plain.working is not None and wider.working is not None
    assert e.corrected["estimate"] == pytest.approx(plain.estimate, rel=1e-12)
    assert e.corrected["working"] == pytest.approx(wider.working, rel=1e-5)
    assert e.corrected["certified"] == pytest.approx(wider.certified, rel=1e-5)


def test_under_the_judges_resolution_only_the_upper_bound_is_left():
    rounds = good_pair().draw(np.array([100, 150, 150]), np.random.default_rng(1))
    counts = Confusion(tp=80, fn=20, u_harm=0, fp=0, tn=200, u_safe=0)
    e = estimated([rounds], counts)
    assert e.status is Status.BOUND_ONLY and "under the judge's resolution" in e.reasons[0]
    bounds = judge_bounds(counts, 0.9)
    assert e.corrected is not None
    assert e.corrected["estimate"] is None and not e.corrected["resolved"]
    assert e.corrected["certified"][0] == 0.0 and e.corrected["working"][0] == 0.0
    wider = estimate_prompt("p", [rounds], NAMES, confidence=0.95, log_width=2.0, corrected=False)
    assert e.corrected["certified"][1] == pytest.approx(wider.certified[1] / bounds.sensitivity[0])
    assert e.estimate > 0 and e.working is not None, "what is judged harm is known all the same"


def test_a_few_more_statuses():
    bad = Confusion(tp=80, fn=20, u_harm=0, fp=0, tn=200, u_safe=0)
    draws = good_pair().draw(np.array([100, 150, 150]), np.random.default_rng(1))
    none = draws._replace(verdict=np.zeros(draws.n, dtype=np.int8))
    e = estimated([none], bad)
    assert e.status is Status.BOUND_ONLY and e.reasons[0].startswith("no harmful answer"), "as before"
    few = np.flatnonzero(draws.harmful)[2:]
    scarce = draws.verdict.copy()
    scarce[few] = 0
    e = estimated([draws._replace(verdict=scarce)], bad)
    assert e.status is Status.UNRELIABLE and "resolution" in e.reasons[-1], (
        "a diagnostic that fails stays said"
    )
    failed = estimate_prompt(
        "p", [], NAMES, confidence=0.9, log_width=2.0, corrected=False, failed_reason="gone"
    )
    e = with_judge_error(failed, failed, judge_bounds(bad, 0.9))
    assert e.status is Status.FAILED and e.reasons == ("gone",)


def test_nothing_is_known_of_a_judge_that_was_shown_harm_only():
    rounds = good_pair().draw(np.array([100, 150, 150]), np.random.default_rng(1))
    e = estimated([rounds], Confusion(tp=50, fn=0, u_harm=0, fp=0, tn=0, u_safe=0))
    assert e.status is Status.BOUND_ONLY
    assert e.corrected is not None and e.corrected["certified"][1] < 1.0
    e = estimated([rounds], Confusion(tp=0, fn=0, u_harm=0, fp=0, tn=10**6, u_safe=0))
    assert e.corrected is not None and e.corrected["certified"][1] == 1.0
