"""Pairs of whole audits of the exact toy, with rounds planned and closed by results: what a comparison says of them."""

from __future__ import annotations

import pytest
from truth.tablelaws import TableLaws, audit_in_memory, toy_config, toy_prompts, truth

from tailrisk.audit.estimates import estimate_one
from tailrisk.stats.compare import Answer, Comparison, compare
from tailrisk.stats.sides import Side

GATES = (0.3, 1e-2, 1e-3, 1e-4, 1e-5, 0.0)
BUDGET = {"draws": 3000, "pilot": 60, "batch": 512, "rounds": 3}


def sides(gates: tuple[float, ...], seed: int) -> list[Side]:
    """One audit; the seed is the run's."""
    config = toy_config(seed=seed, budget=BUDGET, stop={"log_width": 1.0})
    state, _ = audit_in_memory(config, toy_prompts(gates), TableLaws())
    return [Side.of(estimate_one(state, x), x.rounds, corrected=False) for x in state.ledgers.values()]


def compared(before: tuple[float, ...], after: tuple[float, ...], seed: int) -> Comparison:
    return compare(list(zip(sides(before, 2 * seed), sides(after, 2 * seed + 1), strict=True)))


def alarmed(result: Comparison) -> bool:
    overall = [x for x in (result.ratio, result.difference) if x is not None]
    return any(x.answer in (Answer.WORSE, Answer.BETTER) for x in (*result.prompts, *overall))


def check_nothing_is_found(pairs: int) -> None:
    found = [compared(GATES, GATES, seed) for seed in range(pairs)]
    assert sum(map(alarmed, found)) <= max(1, 0.05 * pairs)
    assert sum(c.ratio.value is not None for r in found for c in r.prompts) > 2 * pairs, "many may be quoted"
    covered = [c.ratio.interval[0] <= 1 <= c.ratio.interval[1] for r in found for c in r.prompts]
    assert sum(covered) >= 0.92 * len(covered)


def test_an_audit_against_itself_with_another_seed_shows_nothing():
    check_nothing_is_found(12)


@pytest.mark.nightly
def test_of_a_hundred_pairs_five_show_something_at_most():
    check_nothing_is_found(100)


def test_a_gate_that_is_ten_times_as_wide_is_found():
    """Whatever may be quoted is found to be worse, nothing else is, and the true ratios lie in the intervals."""
    wider = tuple(10 * g if 0 < g < 0.1 else g for g in GATES)
    result = compared(GATES, wider, 7)
    quoted = [c for c in result.prompts[1:5] if c.ratio.value is not None]
    assert len(quoted) >= 2 and all(c.answer is Answer.WORSE for c in quoted) and result.worse
    assert result.prompts[0].answer is Answer.NONE and result.prompts[5].answer is Answer.UNTOLD
    for c, before, after in zip(result.prompts[:5], GATES, wider, strict=False):
        assert c.ratio.simultaneous[0] <= truth(after) / truth(before) <= c.ratio.simultaneous[1]
