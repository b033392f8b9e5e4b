"""The state: what is spent, what is pending, what a twin or a stranger does."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from truth.tablelaws import T, TableLaws, WordJudge, toy_config, toy_prompts

from tailrisk.audit.estimates import estimate_all
from tailrisk.audit.planner import plan_round
from tailrisk.audit.protocols import LawCard
from tailrisk.audit.state import AuditState
from tailrisk.audit.work import run_batch
from tailrisk.errors import ModelError, StoreError
from tailrisk.records import BatchFailure, BatchResult, Status

COMPONENTS = ("target", "good")


@pytest.fixture
def begun():
    """State after the pilot's plan, the plan, and its outcomes."""
    laws, prompts = TableLaws(COMPONENTS), toy_prompts([0.1, 0.01])
    config = toy_config(COMPONENTS, budget={"draws": 400, "tokens": 2400, "pilot": 20, "batch": 8})
    state = AuditState(config, prompts, LawCard.of(laws))
    plan = plan_round(state)
    assert plan is not None
    state.add_plan(plan)
    by_id = {p.id: p for p in prompts}
    outcomes = [run_batch(laws, WordJudge(), by_id[b.prompt_id], b) for b in plan.batches]
    return state, plan, outcomes


def test_pending_draws_are_reserved_at_their_longest(begun):
    state, _, outcomes = begun
    assert state.draws_left == 360
    assert state.tokens_left == 2400 - 40 * T
    for outcome in outcomes:
        state.add_outcome(outcome)
    assert state.tokens == sum(o.generated_tokens for o in outcomes) < 40 * T
    assert state.tokens_left == 2400 - state.tokens
    assert not state.pending


def test_a_twin_changes_nothing(begun):
    state, _, outcomes = begun
    assert state.add_outcome(outcomes[0])
    tokens = state.tokens
    assert not state.add_outcome(outcomes[0])
    assert (state.tokens, state.draws) == (tokens, outcomes[0].n)


def test_a_round_counts_when_it_is_complete(begun):
    state, plan, outcomes = begun
    mine = [o for o in outcomes if o.batch.prompt_id == "p00"]
    for outcome in mine[:-1]:
        state.add_outcome(outcome)
        assert state.ledgers["p00"].rounds == []
    state.add_outcome(mine[-1])
    (draws,) = state.ledgers["p00"].rounds
    assert draws.n == 20 and tuple(draws.counts) == plan.prompts[0].counts
    assert (np.diff(draws.component) >= 0).all()


def test_a_failed_batch_fails_its_prompt_alone_and_is_spent(begun):
    state, plan, outcomes = begun
    for outcome in outcomes[1:]:
        state.add_outcome(outcome)
    state.add_outcome(BatchFailure(batch=plan.batches[0], reason="killed its worker"))
    first, second = estimate_all(state)
    assert (first.status, first.reasons[0]) == (Status.FAILED, "killed its worker")
    assert second.status != Status.FAILED and second.draws == 20
    assert state.draws_left == 360
    assert state.tokens_left == 2400 - state.tokens - plan.batches[0].size * T
    following = plan_round(state)
    assert following is not None
    assert {p.prompt_id for p in following.prompts} == {"p01"}


def test_planning_waits_for_every_outcome(begun):
    state, _, outcomes = begun
    state.add_outcome(outcomes[0])
    with pytest.raises(ValueError, match="without an outcome"):
        plan_round(state)


def test_a_plan_out_of_turn_is_a_damaged_log(begun):
    state, plan, _ = begun
    with pytest.raises(StoreError, match="plans round 0 after round 0"):
        state.add_plan(plan)


def test_a_stranger_in_the_log(begun):
    state, _, outcomes = begun
    stray = dataclasses.replace(outcomes[0].batch, prompt_id="other")
    with pytest.raises(StoreError, match="other/0/0"):
        state.add_outcome(dataclasses.replace(outcomes[0], batch=stray))
    with pytest.raises(StoreError, match="p00/0/99"):
        state.add_verdicts("p00/0/99", np.zeros(1, np.int8), [""])


def test_longer_than_allowed_is_a_model_error(begun):
    state, _, outcomes = begun
    result = outcomes[0]
    assert isinstance(result, BatchResult)
    long = dataclasses.replace(result, tokens=[np.ones(T + 1, np.int32)] * result.n)
    with pytest.raises(ModelError, match="max_new_tokens"):
        state.add_outcome(long)


def test_later_verdicts_replace_the_first(begun):
    state, _, outcomes = begun
    for outcome in outcomes:
        state.add_outcome(outcome)
    before = estimate_all(state)[0]
    batch = outcomes[0].batch
    state.add_verdicts(batch.key, np.full(batch.size, 2, np.int8), ["away"] * batch.size)
    assert state.unjudged == {batch.key: batch.size}
    assert estimate_all(state)[0].undetermined == batch.size
    state.add_verdicts(batch.key, outcomes[0].verdicts, [""] * batch.size)
    assert state.unjudged == {}
    assert estimate_all(state)[0] == before
