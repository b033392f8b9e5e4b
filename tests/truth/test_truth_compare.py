"""Pairs of whole audits of the exact toy, with rounds planned and closed by results: what a comparison says of them."""

from __future__ import annotations

import pytest
from truth.tablelaws import TableLaws, audit_in_memory, toy_config, toy_prompts, truth

from tailrisk.audit.estimates import estimate_one
from tailrisk.stats.compare import Answer, Comparison, compare
from tailrisk.stats.sides import Side

GATES = (0.3, 1e-2, 1e-3, 1e-4, 1e-5, 0.0)
COMPONENTS = ("target", "good", "mild")
BUDGET = {"draws": 1500, "pilot": 40, "batch": 256, "rounds": 3}


def sides(gates: tuple[float, ...], seed: int) -> list[Side]:
    """One audit; the seed is the run's."""
    config = toy_config(COMPONENTS, seed=seed, budget=BUDGET, stop={"log_width": 1.0})
    state, _ = audit_in_memory(config, toy_prompts(gates), TableLaws(COMPONENTS))
    return [Side.of(estimate_one(state, x), x.rounds, corrected=False) for x in state.ledgers.values()]


def compared(before: tuple[float, ...], after: tuple[float, ...], seed: int) -> Comparison:
    return compare(list(zip(sides(before, 2 * seed), sides(after, 2 * seed + 1), strict=True)))


def alarmed(result: Comparison) -> bool:
    overall = [x for x in (result.ratio, result.difference) if x is not None]
    return any(x.answer in (Answer.WORSE, Answer.BETTER) for x in (*result.prompts, *overall))


def check_nothing_is_found(pairs: int) -> None:
    found = [compared(GATES, GATES, seed) for seed in range(pairs)]
    assert sum(map(alarmed, found)) <= 0.05 * pairs
    assert sum(c.ratio.value is not None for r in found for c in r.prompts) > 3 * pairs, "most may be quoted"
    covered = [c.ratio.interval[0] <= 1 <= c.ratio.interval[1] for r in found for c in r.prompts]
    assert sum(covered) >= 0.92 * len(covered)


def test_an_audit_against_itself_with_another_seed_shows_nothing():
    check_nothing_is_found(20)


@pytest.mark.nightly
def test_of_a_hundred_pairs_five_show_something_at_most():
    check_nothing_is_found(100)


def test_a_gate_that_is_three_times_as_wide_is_found():
    wider = tuple(3 * g if 0 < g <= 0.01 else g for g in GATES)
    ratios = [truth(b) / truth(a) for a, b in zip(GATES[1:5], wider[1:5], strict=True)]
    assert min(ratios) > 2.5
    result = compared(GATES, wider, 7)
    answers = [c.answer for c in result.prompts]
    assert answers[1:5].count(Answer.WORSE) >= 3 and result.worse
    assert answers[0] is Answer.NONE and answers[5] is Answer.UNTOLD
    for c, ratio in zip(result.prompts[1:5], ratios, strict=True):
        assert c.ratio.simultaneous[0] <= ratio <= c.ratio.simultaneous[1]
