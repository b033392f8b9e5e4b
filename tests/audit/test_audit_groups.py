"""Groups of prompts reach the shares of the driver, and searched prompts begin from what the search chose."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from truth.searchtoy import SearchLaws, search_config
from truth.tablelaws import TableLaws, audit_in_memory, toy_config, toy_prompts

from tailrisk.audit.estimates import estimate_all
from tailrisk.audit.outlook import outlook
from tailrisk.audit.recovery import rebuild
from tailrisk.records import RoundPlan
from tailrisk.stats.shares import component_shares

GATES = [0.05, 2e-2, 1e-3, 1e-5]


def pilot_of(log, rounds: int) -> list:
    """The records of the log before the plan of round ``rounds``."""
    cut = next(i for i, r in enumerate(log.records) if isinstance(r, RoundPlan) and r.round == rounds)
    return log.records[:cut]


def test_prompts_of_a_group_learn_from_one_another_and_others_as_ever():
    config = toy_config(seed=3, budget={"draws": 1500, "pilot": 40, "batch": 64, "rounds": 2})
    plain = toy_prompts(GATES)
    laws = TableLaws()
    plain_state, log = audit_in_memory(config, plain, laws)
    records = pilot_of(log, 1)
    groups = ["a", None, "a", "a"]
    grouped = [replace(p, group=g) for p, g in zip(plain, groups, strict=True)]
    views = []
    for prompts in (plain, grouped):
        state = rebuild(config, prompts, plain_state.laws, records)
        views.append(outlook(state, state.open_ledgers).shares)
    rounds = [x.rounds for x in state.open_ledgers]
    want = component_shares(rounds, target_share=0.2, corrected=False, groups=groups)
    assert views[1] == pytest.approx(want)
    assert np.array_equal(views[0][1], views[1][1]) and not np.allclose(views[0], views[1])
    whole, _ = audit_in_memory(config, grouped, TableLaws())
    assert [e.group for e in estimate_all(whole)] == groups
    assert all(e.group is None for e in estimate_all(plain_state))


def test_after_a_search_shares_begin_from_its_pilot():
    config = search_config(2, method={"per": "all", "search_draws": 60, "keep": 3})
    prompts = toy_prompts([1e-3, 2e-3])
    laws = SearchLaws(config)
    done, log = audit_in_memory(config, prompts, laws)
    state = rebuild(config, prompts, done.laws, pilot_of(log, 2))
    ledgers = state.open_ledgers
    components = list(ledgers[0].components)
    pilot = np.sum([x.rounds[0].counts for x in ledgers], axis=0)
    want = component_shares(
        [x.rounds for x in ledgers],
        target_share=0.2,
        corrected=False,
        start=pilot / pilot.sum(),
    )
    got = outlook(state, ledgers).shares
    assert got[:, components] == pytest.approx(want)
    left_out = np.setdiff1d(np.arange(got.shape[1]), components)
    assert (got[:, left_out] == 0).all() and got.sum(axis=1) == pytest.approx(1.0)
