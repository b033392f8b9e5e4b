"""``method: paper`` through the whole driver, on an exact toy with a grid of token mixtures and switches."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from truth.tablelaws import (
    BEGIN,
    STOP,
    MemoryLog,
    T,
    WordJudge,
    audit_in_memory,
    gate_of,
    table,
    toy_prompts,
    truth,
)

from tailrisk.audit.driver import run_audit
from tailrisk.audit.estimates import estimate_all
from tailrisk.audit.local import LocalExecutor
from tailrisk.audit.methods import METHODS, plan_round
from tailrisk.audit.methods.paper import chosen_component
from tailrisk.audit.protocols import LawCard
from tailrisk.audit.recovery import rebuild
from tailrisk.audit.state import AuditState
from tailrisk.audit.totals import totals
from tailrisk.cli.progress import round_name
from tailrisk.config import Config
from tailrisk.errors import ConfigError, ModelError
from tailrisk.grid import cells, law_cells, paper_size
from tailrisk.records import BatchResult, Prompt, RoundPlan, Samples, Status
from tailrisk.report import render_report
from tailrisk.report.replay import Replay
from tailrisk.report.validity import checks
from tailrisk.store import RunStore, make_manifest

GRID = {"intensity": [0.3, 0.8], "mix": [0.5, 1.0], "switch": [1, 3, None]}
PAPER = {"kind": "paper", "draws": 120, "search_draws": 40, "search_share": 0.5, "grid": GRID}
GATES = (0.05, 1e-3, 2e-2, 1e-4)
PROMPTS = toy_prompts(GATES)


def config(seed: int = 0, method: dict | None = None, **sections: object) -> Config:
    return Config.model_validate(
        {
            "run": {"name": "paper", "seed": seed},
            "target": {"model": "toy", "dtype": "float64", "sampling": {"max_new_tokens": T}},
            "prompts": {"path": "unused.jsonl"},
            "proposals": [{"name": "ablated", "kind": "ablation", "direction": "unused"}],
            "judge": {"kind": "regex", "pattern": "bomb|poison"},
            "method": {**PAPER, **(method or {})},
            "budget": {"draws": 2000, "batch": 32},
            "tracking": {"uri": None},
            **sections,
        }
    )


class GridLaws:
    """The toy's target, and cells that open its gate by ``intensity``, mixed token by token up to a switch.

    A law is [T, V + 1, V] next-token probabilities, one table a step, so its density needs no other code.
    """

    corrected = False

    def __init__(self, grid: Config) -> None:
        self.names = grid.component_names
        self.fingerprints = tuple(hashlib.sha256(n.encode()).hexdigest() for n in self.names)
        self._cells = law_cells(grid)
        self._steps: dict[float, np.ndarray] = {}
        self.calls = 0

    def steps(self, prompt: Prompt) -> np.ndarray:
        """[K, T, V + 1, V]"""
        gate = gate_of(prompt)
        if gate not in self._steps:
            own = np.stack([table(gate)] * T)
            laws = [own]
            for cell in self._cells:
                intensity, mix = float(cell.values["intensity"] or 0), float(cell.values["mix"] or 0)
                switch = cell.values["switch"]
                steered = table(float(gate ** (1 - intensity)) * 0.9, harm=0.08 + 0.08 * intensity)
                law = own.copy()
                end = T if switch is None else int(switch)
                law[:end] = mix * steered + (1 - mix) * own[:end]
                laws.append(law)
            self._steps[gate] = np.stack(laws)
        return self._steps[gate]

    def sample(self, prompt: Prompt, component: int, n: int, seed: int) -> Samples:
        self.calls += 1
        law = self.steps(prompt)[component]
        uniform = np.random.default_rng(seed).random((n, T))
        heap = np.cumsum(law, axis=-1)
        heap[heap > 1 - 1e-12] = np.inf
        last, words = np.full(n, BEGIN), np.zeros((n, T), dtype=np.int32)
        for t in range(T):
            drawn = (heap[t, last] <= uniform[:, t, None]).sum(axis=1)
            last = np.where(last == STOP, STOP, drawn)
            words[:, t] = last
        lengths = np.where((words == STOP).any(axis=1), (words == STOP).argmax(axis=1) + 1, T)
        tokens = [row[:m].copy() for row, m in zip(words, lengths, strict=True)]
        finished = np.array([row[-1] == STOP for row in tokens])
        return Samples(tokens, self.log_prob(prompt, tokens)[:, component], finished)

    def log_prob(
        self, prompt: Prompt, tokens: Sequence[np.ndarray], components: Sequence[int] | None = None
    ) -> np.ndarray:
        with np.errstate(divide="ignore"):
            log_p = np.log(self.steps(prompt))
        if components is not None:
            log_p = log_p[list(components)]
        total = np.zeros((len(tokens), len(log_p)))
        for t in range(T):
            rows = np.array([i for i, row in enumerate(tokens) if len(row) > t], dtype=np.int64)
            if len(rows):
                before = [tokens[i][t - 1] if t else BEGIN for i in rows]
                total[rows] += log_p[:, t, before, [tokens[i][t] for i in rows]].T
        return total

    def texts(self, tokens: Sequence[np.ndarray]) -> list[str]:
        words = ("", "sorry", "well", "so", "then", "bomb", "poison")
        return [" ".join(words[w] for w in row if w != STOP) for row in tokens]


def plans(log: MemoryLog) -> list[RoundPlan]:
    return [r for r in log.records if isinstance(r, RoundPlan)]


def audit(seed: int = 0, **kwargs):
    made = config(seed, **kwargs)
    laws = GridLaws(made)
    return audit_in_memory(made, PROMPTS, laws, executor=LocalExecutor(laws, WordJudge(), PROMPTS))


def test_the_toy_with_a_grid_is_exact():
    laws = GridLaws(config())
    drawn = laws.sample(PROMPTS[1], 5, 400, seed=1)
    assert drawn.log_q == pytest.approx(laws.log_prob(PROMPTS[1], drawn.tokens)[:, 5])
    own = LocalExecutor(laws, WordJudge(), PROMPTS)
    assert own.card.names[1] == "ablated-intensity0.3-mix0.5-switch1" and len(own.card.names) == 13
    # Harm's probability by importance sampling from one cell, many draws, against the recursion.
    many = laws.sample(PROMPTS[0], 12, 60_000, seed=2)
    log_q = laws.log_prob(PROMPTS[0], many.tokens)
    harm = np.array([bool({5, 6} & set(t.tolist())) for t in many.tokens])
    x = np.exp(log_q[:, 0] - log_q[:, 12]) * harm
    assert x.mean() == pytest.approx(truth(GATES[0]), abs=4 * x.std() / math.sqrt(len(x)))


def test_two_rounds_search_and_final():
    state, log = audit()
    search, final = plans(log)
    assert [p.prompt_id for p in search.prompts] == ["p00", "p01"], "the first half, in file order"
    grid = cells(state.config)
    for plan in search.prompts:
        assert plan.mass == 0 and not plan.final and sum(plan.counts) == 2 * 40
        for strength in (0, 1):
            members = [c.component for c in grid if c.strength == strength]
            assert sum(plan.counts[k] for k in members) == 40, "as many at each intensity"
    assert search.prompts[0].counts != search.prompts[1].counts, "cells are drawn, prompt by prompt"
    chosen = chosen_component(state)
    one_hot = tuple(120 if k == chosen else 0 for k in range(13))
    assert [(p.prompt_id, p.counts, p.mass, p.final) for p in final.prompts] == [
        (prompt.id, one_hot, 1.0, True) for prompt in PROMPTS
    ]
    assert [round_name(p) for p in (search, final)] == ["search", "round 1"]
    seeds = [b.seed for p in (search, final) for b in p.batches]
    assert len(set(seeds)) == len(seeds)
    assert state.draws == state.draws_planned == paper_size(state.config, 4).draws == 2 * 80 + 4 * 120
    assert state.draws_left == 2000 - state.draws
    assert plan_round(state) is None


def test_the_estimate_is_the_mean_of_p_over_q_and_the_search_is_not_in_it():
    state, log = audit(3)
    chosen = chosen_component(state)
    for estimate in estimate_all(state):
        batches = [
            r
            for r in log.records
            if isinstance(r, BatchResult) and r.batch.prompt_id == estimate.prompt_id and r.batch.round == 1
        ]
        log_q = np.concatenate([b.log_q for b in batches])
        harm = np.concatenate([b.verdicts for b in batches]) == 1
        by_hand = float((np.exp(log_q[:, 0] - log_q[:, chosen]) * harm).sum() / 120)
        assert estimate.estimate == pytest.approx(by_hand, rel=1e-12)
        assert estimate.draws == 120 and estimate.hits == harm.sum() and estimate.target_draws == 0
        spent = {k: v["draws"] for k, v in estimate.components.items() if v["draws"]}
        assert spent == {state.laws.names[chosen]: 120}
        low, high = estimate.certified
        assert low <= truth(gate_of(state.ledgers[estimate.prompt_id].prompt)) <= high == 1.0
    # Other verdicts in the search change the choice at most; a search without hits takes the strongest cell.
    blind = []
    for record in log.records:
        if isinstance(record, BatchResult) and record.batch.round == 0:
            record = replace(record, verdicts=np.zeros_like(record.verdicts))
        blind.append(record)
    again = rebuild(state.config, PROMPTS, state.laws, blind)
    assert [e.to_json() for e in estimate_all(again)] == [e.to_json() for e in estimate_all(state)]
    assert state.laws.names[chosen_component(again)] == "ablated-intensity0.8-mix1-switchall"


def test_unbiased_over_whole_audits_with_the_search():
    ratios, chosen = [], []
    for seed in range(200):
        state, _ = audit(
            seed, method={"search_draws": 15, "draws": 1000}, budget={"draws": 9000, "batch": 1000}
        )
        ratios.append([e.estimate / truth(g) for e, g in zip(estimate_all(state), GATES, strict=True)])
        chosen.append(chosen_component(state))
    ratios = np.array(ratios)
    se = ratios.std(axis=0, ddof=1) / math.sqrt(len(ratios))
    z = (ratios.mean(axis=0) - 1.0) / se
    assert np.abs(z).max() < 3.0, (ratios.mean(axis=0), z)
    assert se.max() < 0.02, se
    assert len(set(chosen)) >= 3, "the test must see choices that depend on the search"


def test_plenty_of_search_draws_choose_the_exact_minimum():
    """The exact cross-entropies by enumeration of all answers of the two searched prompts."""
    made = config(method={"search_draws": 6000}, budget={"draws": 30_000, "batch": 1024})
    laws = GridLaws(made)
    prompts = PROMPTS[:2]
    total = np.zeros(12)
    for prompt in prompts:
        answers = _answers()
        log_q = laws.log_prob(prompt, answers)
        harm = np.array([bool({5, 6} & set(a.tolist())) for a in answers]) & np.isfinite(log_q[:, 0])
        entropy = -(np.exp(log_q[harm, 0]) @ np.maximum(log_q[harm, 1:], -1e9))
        total += entropy / entropy.sum()
    ranked = np.sort(total)
    assert ranked[1] / ranked[0] > 1.002, "the toy must have a clear minimum"
    state, _ = audit_in_memory(
        config(method={"search_draws": 6000, "search_share": 1.0}, budget={"draws": 30_000, "batch": 1024}),
        prompts,
        laws,
        executor=LocalExecutor(laws, WordJudge(), prompts),
    )
    assert chosen_component(state) == 1 + int(np.argmin(total))


def _answers() -> list[np.ndarray]:
    """Every answer of positive probability under some law of the toy."""
    possible = table(0.5) > 0
    done, grow = [], [()]
    for _ in range(T):
        longer = [(*a, w) for a in grow for w in np.flatnonzero(possible[a[-1] if a else BEGIN]).tolist()]
        done += [a for a in longer if a[-1] == STOP]
        grow = [a for a in longer if a[-1] != STOP]
    return [np.array(a, dtype=np.int32) for a in (*done, *grow)]


class AnyOrder(LocalExecutor):
    def __init__(self, *args, seed: int) -> None:
        super().__init__(*args)
        self.rng = np.random.default_rng(seed)

    def run(self, batches):
        outcomes = list(super().run(batches))
        for i in self.rng.permutation(len(outcomes)):
            yield outcomes[i]


def test_order_of_arrival_and_resuming_change_nothing():
    state, log = audit(6)
    want, want_plans = [e.to_json() for e in estimate_all(state)], plans(log)
    laws = GridLaws(state.config)
    for seed in range(4):
        executor = AnyOrder(laws, WordJudge(), PROMPTS, seed=seed)
        other, other_log = audit_in_memory(state.config, PROMPTS, laws, executor=executor)
        assert plans(other_log) == want_plans
        assert [e.to_json() for e in estimate_all(other)] == want
    for cut in (1, 2, 9, 40, len(log.records) - 1):
        resumed, resumed_log = audit_in_memory(
            state.config,
            PROMPTS,
            laws,
            log=MemoryLog(log.records[:cut]),
            executor=LocalExecutor(laws, WordJudge(), PROMPTS),
        )
        assert plans(resumed_log) == want_plans
        assert [e.to_json() for e in estimate_all(resumed)] == want


def test_a_searched_prompt_that_fails_leaves_the_others():
    class Failing(GridLaws):
        def sample(self, prompt, component, n, seed):
            if prompt.id == "p00":
                raise ModelError("non-finite logits")
            return super().sample(prompt, component, n, seed)

    made = config()
    laws = Failing(made)
    state, log = audit_in_memory(made, PROMPTS, laws, executor=LocalExecutor(laws, WordJudge(), PROMPTS))
    assert [p.prompt_id for p in plans(log)[1].prompts] == ["p01", "p02", "p03"]
    failed, *rest = estimate_all(state)
    assert failed.status == Status.FAILED and all(e.draws == 120 for e in rest)


def test_the_target_may_be_a_cell():
    """The published grid has switch 0 and mix 0: the choice may fall on plain sampling."""
    grid = {"intensity": [0.3, 0.8], "mix": [0.0, 1.0], "switch": [0, 2]}
    made = config(method={"grid": grid})
    assert [c.component for c in cells(made)] == [0, 0, 0, 1, 0, 0, 0, 2]
    laws = GridLaws(made)
    _, log = audit_in_memory(made, PROMPTS, laws, executor=LocalExecutor(laws, WordJudge(), PROMPTS))
    search = plans(log)[0].prompts[0]
    assert len(search.counts) == 3 and search.counts[0] > search.counts[1] > 0


def test_mass_zero_leaves_a_prompt_open_with_all_its_weight():
    made = config()
    laws = GridLaws(made)
    executor = LocalExecutor(laws, WordJudge(), PROMPTS)
    state = AuditState(made, PROMPTS, LawCard.of(laws))
    state.add_plan(plan_round(state) or pytest.fail("no search"))
    with pytest.raises(ValueError, match="without an outcome"):
        plan_round(state)
    for outcome in executor.run(list(state.pending.values())):
        state.add_outcome(outcome)
    ledger = state.ledgers["p00"]
    assert ledger.open and ledger.mass_left == 1.0 and ledger.rounds == []
    assert ledger.draws == 80 and [r.n for r in ledger.searches] == [80]
    (first, *_), spent = estimate_all(state), totals(state, estimate_all(state))
    assert first.draws == 0 and first.certified == (0.0, 1.0) and first.status == Status.BOUND_ONLY
    assert spent["draws"] == spent["search"]["draws"] == 160 and spent["draws_left"] == 2000 - 160


@pytest.mark.parametrize(
    ("method", "budget", "message"),
    [
        ({}, {"draws": 639}, r"160 draws for its search on 2 of 4 prompts and 480.*640 in all.*budget.draws"),
        ({}, {"draws": 640, "tokens": 640 * T - 1}, r"budget.tokens is 3,839.*method.search_share"),
        ({"search_draws": None}, {"draws": 700}, r"480 draws for its search"),
    ],
)
def test_a_budget_that_is_too_small_is_refused_before_anything_is_drawn(method, budget, message):
    from tailrisk.configfile import check_budget

    made = config(method=method, budget=budget)
    laws = GridLaws(made)
    for refuse in (
        lambda: check_budget(made, 4),
        lambda: audit_in_memory(made, PROMPTS, laws, executor=LocalExecutor(laws, WordJudge(), PROMPTS)),
    ):
        with pytest.raises(ConfigError, match=message):
            refuse()
    assert laws.calls == 0
    check_budget(config(budget={"draws": 640, "tokens": 640 * T}), 4)


def test_laws_of_another_grid_are_refused():
    made = config()
    with pytest.raises(ConfigError, match="13"):
        audit_in_memory(made, PROMPTS, GridLaws(config(method={"grid": {**GRID, "mix": [0.5]}})))


def test_every_configured_method_has_a_planner():
    from typing import get_args

    from tailrisk.config import MethodConfig

    kinds = {m.model_fields["kind"].default for m in get_args(get_args(MethodConfig)[0])}
    assert kinds == set(METHODS)


def test_the_run_folder_tells_the_search_apart(tmp_path: Path):
    made = config(2)
    laws = GridLaws(made)
    executor = LocalExecutor(laws, WordJudge(), PROMPTS)
    with RunStore.open(tmp_path / "run", make_manifest(made, PROMPTS)) as store:
        outcome = run_audit(made, PROMPTS, executor.card, executor, store)
    folder, spent = tmp_path / "run", outcome.totals
    assert spent["method"] == "paper" and spent["rounds"] == 2
    assert spent["draws"] == 640 == spent["search"]["draws"] + sum(e.draws for e in outcome.estimates)
    assert len(pq.read_table(folder / "draws.parquet")) == 640
    rows = [json.loads(line) for line in (folder / "hits.jsonl").read_text().splitlines()]
    assert len(rows) == spent["hits"] > spent["search"]["hits"] > 0
    assert sum(r["round"] == 0 for r in rows) == spent["search"]["hits"]
    assert all(r["share"] == 0 for r in rows if r["round"] == 0)
    for estimate in outcome.estimates:
        shares = [r["share"] for r in rows if r["prompt_id"] == estimate.prompt_id]
        if estimate.hits:
            assert math.fsum(shares) == pytest.approx(1.0)
    page = render_report(folder, redact=True).read_text()
    chosen = next(k for k, v in outcome.estimates[0].components.items() if v["draws"])
    assert f">{chosen}</th>" in page and ">search<" in page
    assert page.count("-switch1</th>") <= 1, "only the target and the chosen cell have columns"
    before = laws.calls
    with RunStore.open(folder, make_manifest(made, PROMPTS)) as store:
        again = run_audit(made, PROMPTS, executor.card, executor, store)
    assert again.estimates == outcome.estimates and laws.calls == before


@pytest.mark.parametrize(
    ("mean", "bounded", "said"),
    [
        (0.2, True, "do not trust"),
        (0.2, False, "says nothing, because no draw is of the target itself"),
        (1.8, False, "do not trust"),
        (0.99, False, "as it should be"),
    ],
)
def test_a_low_mean_weight_without_target_draws_is_no_alarm(mean, bounded, said):
    """The best proposal of all, the law of harmful answers, has the mean weight P(harm)."""
    ((_, text),) = checks({"mean_weight": {"value": mean, "se": 0.01}}, Replay(), bounded=bounded)
    assert said in text
