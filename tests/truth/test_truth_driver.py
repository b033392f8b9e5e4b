"""The whole driver on an exact toy: unbiased, within budget, the same whatever the order of arrival."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from truth.tablelaws import (
    HARM1,
    HARM2,
    NAMES,
    STOP,
    MemoryLog,
    T,
    TableLaws,
    V,
    WordJudge,
    audit_in_memory,
    gate_of,
    toy_config,
    toy_prompts,
    truth,
)

from tailrisk.audit.estimates import estimate_all
from tailrisk.audit.local import LocalExecutor
from tailrisk.audit.planner import plan_round
from tailrisk.audit.protocols import LawCard
from tailrisk.audit.recovery import rebuild
from tailrisk.audit.state import AuditState
from tailrisk.config import RunConfig
from tailrisk.errors import ConfigError
from tailrisk.records import BatchResult, RoundPlan, Status

GATES = (0.3, 1e-2, 1e-4, 1e-6)


class AnyOrder(LocalExecutor):
    """Outcomes in a random order, some of them twice."""

    def __init__(self, *args, seed: int) -> None:
        super().__init__(*args)
        self.rng = np.random.default_rng(seed)

    def run(self, batches):
        outcomes = list(super().run(batches))
        twins = [o for o in outcomes if self.rng.random() < 0.1]
        for i in self.rng.permutation(len(outcomes) + len(twins)):
            yield (outcomes + twins)[i]


def plans(log: MemoryLog) -> list[RoundPlan]:
    return [r for r in log.records if isinstance(r, RoundPlan)]


def test_the_toy_is_exact():
    laws, (prompt,) = TableLaws(), toy_prompts([0.01])
    responses = [
        np.array(words, dtype=np.int32)
        for n in range(1, T + 1)
        for words in itertools.product(range(V), repeat=n)
        if STOP not in words[:-1] and (words[-1] == STOP or n == T)
    ]
    p = np.exp(laws.log_prob(prompt, responses))
    harmful = np.array([HARM1 in r or HARM2 in r for r in responses])
    stops_early = np.array([len(r) < T for r in responses])
    assert p.sum(axis=0) == pytest.approx(np.ones(len(NAMES)), abs=1e-12)
    assert p[harmful, 0].sum() == pytest.approx(truth(0.01), rel=1e-12)
    assert p[harmful & stops_early, 0].sum() > 0.1 * truth(0.01)
    assert (p[harmful, 0] > 0)[p[harmful, 4] == 0].any(), "a component that misses harm altogether"


@pytest.mark.slow
def test_unbiased_with_adaptive_rounds_and_early_stopping():
    """Neither the allocation by results nor the closing of prompts by results may move the mean."""
    prompts, laws = toy_prompts(GATES), TableLaws()
    budget = {"draws": 3000, "pilot": 40, "batch": 256, "rounds": 3}
    config = toy_config(budget=budget, stop={"log_width": 1.0})
    ratios, counts, closed_early = [], [], 0
    for seed in range(120):
        state, _ = audit_in_memory(config.model_copy(update={"run": RunConfig(seed=seed)}), prompts, laws)
        estimates = estimate_all(state)
        ratios.append([e.estimate / truth(g) for e, g in zip(estimates, GATES, strict=True)])
        counts.append([e.draws for e in estimates])
        closed_early += sum(x.entries[-1].round < budget["rounds"] for x in state.ledgers.values())
    ratios = np.array(ratios)
    z = (ratios.mean(axis=0) - 1.0) / (ratios.std(axis=0, ddof=1) / np.sqrt(len(ratios)))
    assert np.abs(z).max() < 3.0, (ratios.mean(axis=0), z)
    # A bias that prompts have in common is seen in their mean, which is known to one per cent.
    pooled = ratios.mean(axis=1)
    error = pooled.std(ddof=1) / np.sqrt(len(pooled))
    assert error < 0.011 and abs(pooled.mean() - 1) < 3 * error, (pooled.mean(), error)
    assert closed_early > 100, "the test must see prompts closed before the last round"
    assert np.std(counts, axis=0).min() > 20, "the test must see allocations that depend on results"
    # A useful estimate, not only an unbiased one: plain sampling would see 1e-6 once in 500 such audits.
    assert np.median(np.abs(ratios[:, -1] - 1)) < 0.25


@settings(max_examples=40, deadline=None)
@given(
    draws=st.integers(40, 1500),
    tokens=st.none() | st.integers(200, 6000),
    pilot=st.integers(6, 80),
    batch=st.integers(1, 64),
    rounds=st.integers(1, 5),
    share=st.floats(0.1, 1.0),
    objective=st.sampled_from(["relative", "uniform"]),
    shares=st.sampled_from(["learned", "equal"]),
    many=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_budget_is_never_exceeded_and_every_prompt_is_closed(
    draws, tokens, pilot, batch, rounds, share, objective, shares, many, seed
):
    """With three components and few prompts, and with so many that some prompts are scouts."""
    components = ("target", "good", "mild", "over") if many else ("target", "good", "mild")
    gates = [0.3, 1e-3, 0.0] * (3 if many else 1)
    draws, pilot = (3 * draws, pilot + 2) if many else (draws, pilot)
    budget = {
        "draws": draws,
        "tokens": tokens,
        "pilot": pilot,
        "batch": batch,
        "rounds": rounds,
        "target_share": share,
        "objective": objective,
        "shares": shares,
    }
    prompts = toy_prompts(gates)
    config = toy_config(components, seed=seed, budget=budget)
    log = MemoryLog()
    if pilot * len(prompts) > min(draws, draws if tokens is None else tokens // T):
        with pytest.raises(ConfigError, match="budget"):
            audit_in_memory(config, prompts, TableLaws(components), log=log)
        assert not plans(log)
        return
    state, _ = audit_in_memory(config, prompts, TableLaws(components), log=log)
    assert state.draws == state.draws_planned <= draws
    assert tokens is None or state.tokens <= tokens
    assert len(plans(log)) <= rounds + (2 if many and shares == "learned" else 1)
    batches = [b for plan in plans(log) for b in plan.batches]
    assert len({b.key for b in batches}) == len({b.seed for b in batches}) == len(batches)
    assert max(b.size for b in batches) <= batch
    for ledger in state.ledgers.values():
        assert math.fsum(e.plan.mass for e in ledger.entries) == pytest.approx(1.0, abs=1e-12)
        assert [e.plan.final for e in ledger.entries] == [False] * (len(ledger.entries) - 1) + [True]
        for entry in ledger.entries:
            counts = entry.plan.counts
            assert entry.plan.mass > 0
            assert counts[0] >= min(share * sum(counts) - 1e-6, sum(counts))
            # A single draw has no variance of its own; those that were cast by lot are one stratum.
            lot = entry.plan.faded or (0.0,) * len(counts)
            assert all(c == 0 or c >= 2 for c, f in zip(counts, lot, strict=True) if not f) and counts[0] >= 2
            assert lot[0] == 0 and sum(f > 0 for f in lot) != 1
            drawn = sum(c for c, f in zip(counts, lot, strict=True) if f)
            assert sum(lot) == pytest.approx(drawn) and (not any(lot) or drawn >= 1)
            for k, count in enumerate(counts):
                assert count == sum(len(b.verdicts) for i, b in entry.numbers() if i == k)


def test_tokens_limit_the_draws_and_are_used():
    prompts = toy_prompts([1e-5, 1e-6])
    budget = {"draws": 100_000, "tokens": 6000, "pilot": 40}
    state, _ = audit_in_memory(
        toy_config(budget=budget, stop={"log_width": 0.01}), prompts, TableLaws(), log=MemoryLog()
    )
    # The worst case is reserved round by round, so short answers leave most of it for later rounds.
    assert 4500 < state.tokens <= 6000


def test_the_same_configuration_gives_the_same_plans():
    prompts = toy_prompts(GATES)
    budget = {"draws": 900, "pilot": 30}
    logs = [audit_in_memory(toy_config(seed=s, budget=budget), prompts, TableLaws())[1] for s in (3, 3, 4)]
    assert plans(logs[0]) == plans(logs[1])
    first, other = plans(logs[0])[0], plans(logs[2])[0]
    assert first.prompts == other.prompts
    assert not {b.seed for b in first.batches} & {b.seed for b in other.batches}


def test_equal_laws_get_different_seeds():
    laws, prompts = TableLaws(("target", "good")), toy_prompts([0.1])
    laws.fingerprints = (laws.fingerprints[0],) * 2
    plan = plan_round(AuditState(toy_config(("target", "good")), prompts, LawCard.of(laws)))
    assert plan is not None
    assert len({b.seed for b in plan.batches}) == len(plan.batches)


def test_replay_gives_the_live_estimates_bit_for_bit():
    prompts, laws = toy_prompts(GATES), TableLaws()
    config = toy_config(seed=11, budget={"draws": 900, "pilot": 30})
    state, log = audit_in_memory(config, prompts, laws)
    again = rebuild(config, prompts, LawCard.of(laws), log.replay())
    assert [e.to_json() for e in estimate_all(again)] == [e.to_json() for e in estimate_all(state)]
    assert plan_round(again) is None


def test_order_of_arrival_changes_nothing():
    prompts, laws = toy_prompts(GATES), TableLaws()
    config = toy_config(seed=5, budget={"draws": 900, "pilot": 30, "batch": 8, "rounds": 4})
    state, log = audit_in_memory(config, prompts, laws)
    want, want_plans = [e.to_json() for e in estimate_all(state)], plans(log)
    assert len(want_plans) > 2
    for seed in range(12):
        executor = AnyOrder(laws, WordJudge(), prompts, seed=seed)
        state, log = audit_in_memory(config, prompts, laws, executor=executor)
        assert plans(log) == want_plans
        assert [e.to_json() for e in estimate_all(state)] == want


def test_orders_of_one_round_give_bit_equal_estimates():
    """A hundred permutations of one log's batches."""
    prompts, laws = toy_prompts(GATES[:2]), TableLaws()
    config = toy_config(seed=6, budget={"draws": 400, "pilot": 40, "batch": 8, "rounds": 2})
    state, log = audit_in_memory(config, prompts, laws)
    want = [e.to_json() for e in estimate_all(state)]
    blocks: list[list] = []
    for record in log.records:
        if isinstance(record, RoundPlan):
            blocks.append([record])
        elif isinstance(record, BatchResult):
            blocks[-1].append(record)
    rng = np.random.default_rng(0)
    for _ in range(100):
        records = [
            r for plan, *rest in blocks for r in (plan, *(rest[i] for i in rng.permutation(len(rest))))
        ]
        again = rebuild(config, prompts, LawCard.of(laws), records)
        assert [e.to_json() for e in estimate_all(again)] == want


def test_relative_beats_uniform_on_mixed_prompts():
    """Plain sampling, three frequent prompts and a rare one: the square-root rule halves the mean error."""
    gates = (0.9, 0.9, 0.9, 0.03)
    prompts, laws = toy_prompts(gates), TableLaws(("target",))
    errors = {}
    for objective in ("relative", "uniform"):
        budget = {"draws": 2400, "pilot": 100, "batch": 512, "rounds": 2, "objective": objective}
        squares = []
        for seed in range(80):
            config = toy_config(("target",), seed=seed, budget=budget, stop={"log_width": 0.01})
            state, _ = audit_in_memory(config, prompts, laws)
            assert state.draws == 2400
            squares.append(
                [(e.estimate / truth(g) - 1) ** 2 for e, g in zip(estimate_all(state), gates, strict=True)]
            )
        errors[objective] = np.mean(squares)
    assert errors["relative"] < 0.8 * errors["uniform"], errors


def test_easy_prompts_are_closed_and_leave_the_rest_of_the_budget():
    prompts = toy_prompts([0.3, 0.2, 0.1])
    components = ("target", "good")
    state, _ = audit_in_memory(
        toy_config(components, budget={"draws": 50_000, "pilot": 60}), prompts, TableLaws(components)
    )
    estimates = estimate_all(state)
    assert all(e.status == Status.OK for e in estimates), [e.reasons for e in estimates]
    assert state.draws < 5000
    for e, p in zip(estimates, prompts, strict=True):
        assert e.working is not None
        assert math.log(e.working[1] / e.working[0]) <= 0.7
        assert e.certified[0] <= truth(gate_of(p)) <= e.certified[1]


def test_no_harm_at_all_is_bound_only():
    components = ("target", "good")
    laws = TableLaws(components)
    prompts = toy_prompts([0.5])
    state, _ = audit_in_memory(
        toy_config(components, budget={"draws": 300, "pilot": 60}),
        prompts,
        laws,
        executor=LocalExecutor(laws, _Blind(), prompts),
    )
    (estimate,) = estimate_all(state)
    assert estimate.status == Status.BOUND_ONLY
    assert state.draws == 300
    assert 0 < estimate.certified[1] < 0.2


class _Blind(WordJudge):
    def judge(self, prompt, responses):
        judged = super().judge(prompt, responses)
        return judged._replace(verdicts=np.zeros_like(judged.verdicts))
