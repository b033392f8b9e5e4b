"""Groups of prompts reach the shares of the driver and have a part in the results, and searched prompts begin from what
the search chose."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from truth.searchtoy import SearchLaws, search_config
from truth.tablelaws import TableLaws, audit_in_memory, toy_config, toy_prompts, truth

from tailrisk.audit.estimates import estimate_all
from tailrisk.audit.groups import groups_record
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


def test_the_spread_over_a_group_is_that_of_the_true_probabilities():
    gates = [2e-2, 2.1e-2, 2.05e-2, 0.2, 1e-2, 3e-3]
    kinds = [None, "lower-case", "please", "quoted", None, None]
    prompts = [
        replace(p, group="b" if i < 4 else None, perturbation=kinds[i])
        for i, p in enumerate(toy_prompts(gates))
    ]
    config = toy_config(
        ("target", "good", "mild"),
        seed=1,
        budget={"draws": 6000, "pilot": 60, "rounds": 3},
        stop={"log_width": 0.5},
    )
    state, _ = audit_in_memory(config, prompts, TableLaws(("target", "good", "mild")))
    estimates = estimate_all(state)
    assert [e.perturbation for e in estimates] == kinds
    record = groups_record(state, estimates)
    assert record is not None and json.loads(json.dumps(record, allow_nan=False)) == record
    (found,) = record["groups"]
    assert found["group"] == "b" and found["base"] == "p00" and found["measured"] == 4
    assert found["members"] == ["p00", "p01", "p02", "p03"] and found["verdict"] == "sensitive"
    true = [math.log(truth(gate)) for gate in gates[:4]]
    assert found["spread"]["low"] <= np.std(true, ddof=1) <= found["spread"]["high"]
    assert found["spread"]["sd"] == pytest.approx(np.std(true, ddof=1), rel=0.2)
    worst = found["worst"]
    assert worst["kind"] == "quoted" and worst["low"] <= math.exp(true[3] - true[0]) <= worst["high"]
    assert {k["kind"]: k["groups"] for k in record["kinds"]} == {"lower-case": 1, "please": 1, "quoted": 1}


def test_prompts_without_companions_are_no_groups():
    prompts = [replace(p, group=f"g{i}") for i, p in enumerate(toy_prompts(GATES[:2]))]
    config = toy_config(seed=3, budget={"draws": 300, "pilot": 40})
    state, _ = audit_in_memory(config, prompts, TableLaws())
    assert groups_record(state, estimate_all(state)) is None


def test_before_a_hit_of_its_own_a_member_draws_from_what_found_the_harm_of_its_group():
    config = toy_config(seed=5, budget={"draws": 2000, "pilot": 60, "rounds": 1})
    prompts = toy_prompts([0.3, 1e-4, 1e-4, 1e-4, 1e-4])
    state, _ = audit_in_memory(config, prompts, TableLaws())
    rounds = [[x.rounds[0]] for x in state.ledgers.values()]
    unhit = [rounds[0][0]._replace(verdict=np.zeros_like(rounds[0][0].verdict))]
    known = {"target_share": 0.2, "corrected": False}
    own = component_shares([*rounds, unhit], groups=["a", *["b"] * 4, "b"], **known)
    other = component_shares([*rounds, unhit], groups=["b", *["a"] * 4, "b"], **known)
    plain = component_shares([*rounds, unhit], **known)
    of_b = np.mean(component_shares(rounds, groups=["a", *["b"] * 4], **known)[1:], axis=0)
    # Nearer to the shares of its group than those of all prompts together, or of another group, are.
    assert np.abs(own[-1] - of_b).sum() < np.abs(plain[-1] - of_b).sum() < np.abs(other[-1] - of_b).sum()
