"""Scouts: who they are, that the others begin with what they found, and that shares may be held equal."""

from __future__ import annotations

import numpy as np
import pytest
from truth.tablelaws import NAMES, MemoryLog, TableLaws, audit_in_memory, toy_config, toy_prompts

from tailrisk.audit.drawweights import part_scales
from tailrisk.audit.estimates import estimate_all
from tailrisk.audit.protocols import LawCard
from tailrisk.audit.scouts import choose_scouts
from tailrisk.audit.state import AuditState
from tailrisk.errors import ModelError
from tailrisk.records import Prompt, RoundPlan
from tailrisk.stats import initial_shares, log_weights, pilot_worth

GATES = [1e-4] * 12


def prompts_of(groups: list[str | None]) -> list[Prompt]:
    return [
        Prompt(id=f"p{i:02d}", messages=({"role": "user", "content": "gate=0.0001"},), group=g)
        for i, g in enumerate(groups)
    ]


def scouts(prompts: list[Prompt], names=NAMES, **budget) -> list[str]:
    config = toy_config(names, budget={"draws": 10_000, **budget})
    return list(choose_scouts(AuditState(config, prompts, LawCard.of(TableLaws(names)))))


def plans(log: MemoryLog) -> list[RoundPlan]:
    return [r for r in log.records if isinstance(r, RoundPlan)]


def test_every_fourth_prompt_and_the_first_of_every_group():
    assert len(NAMES) >= 4
    assert scouts(toy_prompts(GATES)) == ["p00", "p04", "p08"]
    grouped = prompts_of(["a", "a", "a", None, None, None, None, None, "b", "b", "b", "b"])
    assert scouts(grouped) == ["p00", "p03", "p07", "p08"]


@pytest.mark.parametrize(
    ("prompts", "names", "budget"),
    [
        (toy_prompts(GATES[:7]), NAMES, {}),
        (toy_prompts(GATES), NAMES[:3], {}),
        (toy_prompts(GATES), NAMES, {"shares": "equal"}),
        (prompts_of([f"g{i // 2}" for i in range(11)]), NAMES, {}),
    ],
    ids=["few prompts", "few proposals", "equal shares", "more than half would be scouts"],
)
def test_no_scouts_where_they_are_not_worth_a_round(prompts, names, budget):
    assert scouts(prompts, names, **budget) == []


def test_the_others_begin_with_what_the_scouts_found():
    prompts = toy_prompts(GATES)
    budget = {"draws": 12 * 400, "pilot": 100, "target_share": 0.2}
    _, log = audit_in_memory(
        toy_config(budget=budget, stop={"log_width": 0.01}, seed=2), prompts, TableLaws(), log=MemoryLog()
    )
    first, second, *later = plans(log)
    assert [p.prompt_id for p in first.prompts] == ["p00", "p04", "p08"]
    assert {p.prompt_id for p in second.prompts} == {p.id for p in prompts} - {"p00", "p04", "p08"}
    assert len(later) == 6 and {p.prompt_id for p in later[-1].prompts} == {p.id for p in prompts}
    assert {sum(p.counts) for p in (*first.prompts, *second.prompts)} == {100}
    even = initial_shares(len(NAMES), 0.2)
    assert np.abs(np.array(first.prompts[0].counts) - 100 * even).max() <= 1
    good, over = NAMES.index("good"), NAMES.index("over")
    for plan in second.prompts:
        assert plan.counts[good] > 1.5 * first.prompts[0].counts[good]
        # A part of the pilot looks elsewhere all the same.
        assert 0.15 * 100 * even[over] <= plan.counts[over] < first.prompts[0].counts[over]
    # Their shares are worth less than what is learned later, so pilots count for less.
    worth = pilot_worth(len(NAMES) - 1)
    masses = [p.mass for p in (*first.prompts, *second.prompts)]
    assert masses == pytest.approx([100 * worth / (100 * worth + 300)] * len(prompts))


@pytest.mark.parametrize("shares", ["learned", "equal"])
def test_rounds_grow_where_shares_are_learned(shares):
    budget = {"draws": 12 * 700, "pilot": 100, "rounds": 5, "objective": "uniform", "shares": shares}
    state, log = audit_in_memory(
        toy_config(budget=budget, stop={"log_width": 0.01}), toy_prompts(GATES), TableLaws(), log=MemoryLog()
    )
    rounds = [sum(sum(p.counts) for p in plan.prompts) for plan in plans(log)]
    pilots = 2 if shares == "learned" else 1
    assert sum(rounds[:pilots]) == 12 * 100 and len(rounds) == pilots + 5
    growth = np.array(rounds[pilots + 1 :]) / rounds[pilots:-1]
    assert growth == pytest.approx([2.0 if shares == "learned" else 1.0] * 4, rel=0.05)
    assert state.draws == 12 * 700


def test_fewer_draws_than_two_a_component_still_close_a_prompt():
    """Nine are left for each, when it is known which of the five components are worth one."""
    prompts = toy_prompts(GATES)
    config = toy_config(budget={"draws": 12 * 109, "pilot": 100}, stop={"log_width": 0.01})
    state, log = audit_in_memory(config, prompts, TableLaws(), log=MemoryLog())
    last = plans(log)[-1]
    assert state.draws == 12 * 109 and {p.prompt_id for p in last.prompts} == {p.id for p in prompts}
    assert all(p.final and 0 in p.counts for p in last.prompts)
    assert all((p.expected > 0).all() for p in last.prompts), "who has no draw could have had one"


def test_a_component_that_has_faded_stays_in_the_mixture():
    """Where nothing but the target could have found a hit, it weighs 1 / target_share whatever it is."""
    budget = {"draws": 12 * 220, "pilot": 60, "target_share": 0.1, "rounds": 8}
    config = toy_config(budget=budget, stop={"log_width": 0.01}, seed=3)
    state, log = audit_in_memory(config, toy_prompts(GATES), TableLaws(), log=MemoryLog())
    every = [p for plan in plans(log) for p in plan.prompts]
    assert sum(0 in p.counts for p in every) > 20
    assert all((p.expected > 0).all() for p in every)
    # As the state reads it from the log, and as the files for users do.
    for ledger in state.ledgers.values():
        for entry, round_ in zip(ledger.entries, ledger.rounds, strict=True):
            assert np.array_equal(round_.expected, entry.plan.expected)
    estimates = estimate_all(state)
    scales = part_scales(state, estimates)
    for (prompt_id, ledger), estimate in zip(state.ledgers.items(), estimates, strict=True):
        parts = [
            np.exp(log_weights(r, corrected=False))[r.harmful].sum() * scales[prompt_id, e.round]
            for e, r in zip(ledger.entries, ledger.rounds, strict=True)
            if estimate.estimate > 0
        ]
        assert not parts or sum(parts) == pytest.approx(1.0)


def test_shares_that_are_even_need_two_draws_a_component():
    config = toy_config(budget={"draws": 12 * 109, "pilot": 100, "shares": "equal"}, stop={"log_width": 0.01})
    state, log = audit_in_memory(config, toy_prompts(GATES), TableLaws(), log=MemoryLog())
    assert state.draws == 12 * 100 and len(plans(log)) == 1, "nine would go to some of the five only"
    assert plans(log)[0].prompts[0].final


def test_equal_shares_stay_those_of_the_pilot():
    budget = {"draws": 12 * 300, "pilot": 100, "shares": "equal", "target_share": 0.2}
    _, log = audit_in_memory(
        toy_config(budget=budget, stop={"log_width": 0.01}), toy_prompts(GATES), TableLaws(), log=MemoryLog()
    )
    for plan in plans(log):
        for p in plan.prompts:
            counts = np.array(p.counts)
            assert np.abs(counts - counts.sum() * initial_shares(len(NAMES), 0.2)).max() <= 1.5
    assert plans(log)[0].prompts[0].mass == pytest.approx(1 / 3)


def test_scouts_that_all_fail_teach_nothing():
    class Failing(TableLaws):
        def sample(self, prompt, component, n, seed):
            if prompt.id in ("p00", "p04", "p08"):
                raise ModelError("broken prompt")
            return super().sample(prompt, component, n, seed)

    state, log = audit_in_memory(
        toy_config(budget={"draws": 12 * 300, "pilot": 100}), toy_prompts(GATES), Failing(), log=MemoryLog()
    )
    assert [i for i, ledger in state.ledgers.items() if ledger.failed] == ["p00", "p04", "p08"]
    even = initial_shares(len(NAMES), 0.2)
    assert np.abs(np.array(plans(log)[1].prompts[0].counts) - 100 * even).max() <= 1
