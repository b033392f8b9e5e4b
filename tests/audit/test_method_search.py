"""``method: search`` through the whole driver on an exact toy: what is chosen, drawn, scored, kept and counted."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from truth.searchtoy import BEST, SearchLaws, grouped, search_config
from truth.tablelaws import MemoryLog, WordJudge, audit_in_memory, toy_prompts

from tailrisk.audit.driver import run_audit
from tailrisk.audit.estimates import estimate_all
from tailrisk.audit.local import LocalExecutor
from tailrisk.audit.methods import plan_round
from tailrisk.audit.methods.choice import Choice, choose
from tailrisk.audit.methods.search import search_counts
from tailrisk.audit.protocols import LawCard
from tailrisk.audit.recovery import rebuild
from tailrisk.audit.searchrecord import search_record
from tailrisk.audit.state import AuditState
from tailrisk.audit.work import Held, score
from tailrisk.cli.progress import round_name
from tailrisk.errors import ConfigError, ModelError, StoreError
from tailrisk.records import Batch, BatchResult, Prompt, RoundPlan, Status
from tailrisk.report import render_report
from tailrisk.store import RunStore, make_manifest

GATES = [0.05, 2e-3, 1e-2]
PROMPTS = toy_prompts(GATES)


def audit(seed: int = 0, prompts: Sequence[Prompt] = PROMPTS, **kwargs):
    config = search_config(seed, **kwargs)
    return audit_in_memory(config, prompts, SearchLaws(config))


def plans(log: MemoryLog) -> list[RoundPlan]:
    return [r for r in log.records if isinstance(r, RoundPlan)]


def results(log: MemoryLog) -> list[BatchResult]:
    return [r for r in log.records if isinstance(r, BatchResult)]


def searched(seed: int, prompts: Sequence[Prompt] = PROMPTS, **kwargs) -> tuple[AuditState, list[Choice]]:
    """The search alone and what it chooses."""
    config = search_config(seed, **kwargs)
    laws = SearchLaws(config)
    state = AuditState(config, prompts, LawCard.of(laws))
    plan = plan_round(state)
    assert plan is not None
    state.add_plan(plan)
    for outcome in LocalExecutor(laws, WordJudge(), prompts).run(list(plan.batches)):
        state.add_outcome(outcome)
    return state, choose(state)


def test_the_search_is_spread_evenly_and_the_rest_is_of_the_chosen_alone():
    state, log = audit()
    search, pilot, *later = plans(log)
    assert [round_name(p) for p in (search, pilot)] == ["search", "round 1"]
    assert len(search.prompts) == 3 and all(p.mass == 0 and p.components is None for p in search.prompts)
    assert all(sum(p.counts) == 40 and p.counts[0] == 8 for p in search.prompts)
    over_prompts = np.sum([p.counts for p in search.prompts], axis=0)[1:]
    assert over_prompts.max() - over_prompts.min() <= 1
    for plan in (pilot, *later):
        for part in plan.prompts:
            assert part.mass > 0 and part.components is not None
            assert part.components[0] == 0 and len(part.components) == 3
            drawn = {k for k, c in enumerate(part.counts) if c}
            assert drawn <= set(part.components), "other components get no draws and have no floor"
            assert part.counts[0] >= 0.2 * sum(part.counts)
            same = next(p for p in pilot.prompts if p.prompt_id == part.prompt_id)
            assert part.components == same.components
    assert sum(p.mass for q in plans(log) for p in q.prompts if p.prompt_id == "p00") == pytest.approx(1.0)
    assert state.search_rounds == 1 and plan_round(state) is None
    assert all(sum(p.counts) == 24 for p in pilot.prompts)


def test_what_does_not_count_is_not_scored_and_cannot_be_mistaken():
    state, log = audit()
    for result in results(log):
        asked = result.batch.components
        if result.batch.round == 0:
            assert asked is None and not np.isnan(result.log_q).any()
        else:
            assert asked is not None
            left_out = np.setdiff1d(np.arange(8), asked)
            assert np.isnan(result.log_q[:, left_out]).all() and not np.isnan(result.log_q[:, asked]).any()
    for ledger in state.ledgers.values():
        assert all(r.log_q.shape[1] == 3 and not np.isnan(r.log_q).any() for r in ledger.rounds)
        assert all(r.log_q.shape[1] == 8 for r in ledger.searches)
    for estimate in estimate_all(state):
        assert set(estimate.components) == {
            state.laws.names[k] for k in state.ledgers[estimate.prompt_id].components
        }
        assert sum(c["draws"] for c in estimate.components.values()) == estimate.draws


def test_few_draws_of_many_cells_go_in_blocks():
    state = AuditState(
        search_config(method={"search_draws": 16}), PROMPTS, LawCard.of(SearchLaws(search_config()))
    )
    counts = np.array([search_counts(state, i) for i in range(7)])
    assert (counts.sum(axis=1) == 16).all() and (counts[:, 0] == 4).all()
    assert set(counts[:, 1:].ravel().tolist()) == {0, 4}
    assert (counts[:, 1:].sum(axis=0) == 12).all(), "seven prompts go three times round seven cells"


def test_the_planted_cell_is_chosen_and_another_proposal_beside_it():
    best = beside = own = 0
    for seed in range(60):
        state, choices = searched(seed, toy_prompts([2e-3]), method={"search_draws": 400})
        (choice,) = choices
        names = [state.laws.names[k] for k in choice.components]
        own += choice.basis == "own"
        best += BEST in names
        beside += any(n.startswith("pushed") for n in names) and any(n.startswith("ablated") for n in names)
    assert own >= 40 and best >= 54 and beside == 60, (own, best, beside)


def test_the_estimate_rests_on_the_later_draws_with_the_mixture_s_weights():
    state, log = audit(3)
    for estimate in estimate_all(state):
        total = 0.0
        for plan in plans(log)[1:]:
            part = next((p for p in plan.prompts if p.prompt_id == estimate.prompt_id), None)
            if part is None:
                continue
            mine = [
                r for r in results(log) if (r.batch.prompt_id, r.batch.round) == (part.prompt_id, plan.round)
            ]
            counts = np.array(part.counts)
            log_q = np.concatenate([r.log_q for r in mine])[:, counts > 0]
            harm = np.concatenate([r.verdicts for r in mine]) == 1
            weight = np.exp(log_q[:, 0]) / (np.exp(log_q) @ (counts[counts > 0] / counts.sum()))
            total += part.mass * float((weight * harm).sum()) / counts.sum()
        assert estimate.estimate == pytest.approx(total, rel=1e-12)
    blind = [
        replace(r, verdicts=np.zeros_like(r.verdicts))
        if isinstance(r, BatchResult) and r.batch.round == 0
        else r
        for r in log.records
    ]
    again = rebuild(state.config, PROMPTS, state.laws, blind)
    assert [e.to_json() for e in estimate_all(again)] == [e.to_json() for e in estimate_all(state)]


@pytest.mark.parametrize(
    "budget",
    [
        {"draws": 3 * (40 + 24), "pilot": 24},
        {"draws": 3 * (40 + 24) + 17, "pilot": 24, "batch": 5},
        {"draws": 5000, "tokens": 3 * (40 + 24) * 6 + 100, "pilot": 24},
        {"draws": 700, "pilot": 40, "rounds": 4},
    ],
)
def test_the_budget_is_never_exceeded(budget):
    for seed in range(5):
        state, _ = audit(seed, budget=budget)
        assert state.draws == state.draws_planned <= budget["draws"]
        assert budget.get("tokens") is None or state.tokens <= budget["tokens"]
        assert all(not ledger.open for ledger in state.ledgers.values()), "no mass is left over"


def test_a_budget_that_does_not_hold_search_and_pilot_is_refused():
    with pytest.raises(ConfigError, match=r"40 draws a prompt.*pilot of 24.*192 in all for 3 prompts"):
        audit(budget={"draws": 191, "pilot": 24})
    with pytest.raises(ConfigError, match=r"1,152 tokens; budget.tokens is 1,151"):
        audit(budget={"draws": 5000, "tokens": 1151, "pilot": 24})
    with pytest.raises(ConfigError, match=r"budget.pilot is 5, .* at least 6, or lower method.keep"):
        audit(budget={"draws": 5000, "pilot": 5})


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
    for seed in range(3):
        laws = SearchLaws(state.config)
        executor = AnyOrder(laws, WordJudge(), PROMPTS, seed=seed)
        other, other_log = audit_in_memory(state.config, PROMPTS, laws, executor=executor)
        assert plans(other_log) == want_plans
        assert [e.to_json() for e in estimate_all(other)] == want
        assert search_record(other) == search_record(state)
    first = next(i for i, r in enumerate(log.records) if isinstance(r, RoundPlan) and r.round == 1)
    for cut in (1, 2, 9, first - 1, first, first + 1, first + 4, len(log.records) - 1):
        resumed, resumed_log = audit_in_memory(
            state.config, PROMPTS, SearchLaws(state.config), log=MemoryLog(log.records[:cut])
        )
        assert plans(resumed_log) == want_plans
        assert [e.to_json() for e in estimate_all(resumed)] == want


def test_without_hits_the_strongest_cells_take_turns():
    state, choices = searched(0, toy_prompts([1e-300] * 3), method={"search_draws": 40, "keep": 1})
    assert {c.basis for c in choices} == {"own"}, "this toy's cells open the gate whatever it is"
    blind = search_config(0, method={"keep": 1})

    class Blind(WordJudge):
        def judge(self, prompt, responses):
            return super().judge(prompt, ["" for _ in responses])

    laws = SearchLaws(blind)
    state, log = audit_in_memory(blind, PROMPTS, laws, executor=LocalExecutor(laws, Blind(), PROMPTS))
    chosen = [[state.laws.names[k] for k in p.components or ()] for p in plans(log)[1].prompts]
    assert chosen == [
        ["target", BEST],
        ["target", "pushed-layers1-coefficient4"],
        ["target", BEST],
    ]
    record = search_record(state)
    assert record is not None and {p["basis"] for p in record["pools"]} == {"none"}
    assert all(e.status == Status.BOUND_ONLY for e in estimate_all(state))


def test_few_hits_are_filled_up_with_the_strongest_of_other_proposals():
    sparse = WordJudge()
    told = []

    class OneHit(WordJudge):
        """Only the first harmful answer of the search is called harm."""

        def judge(self, prompt, responses):
            judged = sparse.judge(prompt, responses)
            for i in np.flatnonzero(judged.verdicts == 1):
                if told:
                    judged.verdicts[i] = 0
                told.append(i)
            return judged

    config = search_config(1, method={"keep": 3})
    laws = SearchLaws(config)
    state = AuditState(config, PROMPTS, LawCard.of(laws))
    plan = plan_round(state)
    assert plan is not None
    state.add_plan(plan)
    for outcome in LocalExecutor(laws, OneHit(), PROMPTS).run(list(plan.batches)):
        state.add_outcome(outcome)
    (choice,) = choose(state)
    assert (choice.pool, choice.basis, choice.hits) == ("all", "few", 1)
    proposals = {state.laws.names[k].split("-")[0] for k in choice.components[1:]}
    assert proposals == {"ablated", "pushed"} and choice.held_out == ()


def test_groups_choose_together_and_the_poor_with_all():
    prompts = grouped([2e-3, 2e-3, 1e-3, 1e-2, 0.02], ["a", "a", None, "b", "b"])
    big: dict = {"budget": {"draws": 5000, "pilot": 24}}
    state, choices = searched(2, prompts, method={"search_draws": 300}, **big)
    assert [(c.pool, c.prompts) for c in choices] == [
        ("group a", ("p00", "p01")),
        ("prompt p02", ("p02",)),
        ("group b", ("p03", "p04")),
    ]
    alone = searched(2, prompts, method={"search_draws": 300, "per": "prompt"}, **big)[1]
    assert sorted(i for c in alone for i in c.prompts) == [p.id for p in prompts]
    assert {c.pool for c in alone} <= {f"prompt {p.id}" for p in prompts} | {"all"}
    (together,) = searched(2, prompts, method={"search_draws": 300, "per": "all"}, **big)[1]
    assert (together.pool, together.prompts) == ("all", tuple(p.id for p in prompts))
    assert together.hits == sum(c.hits for c in choices)
    poor = searched(2, prompts, method={"search_draws": 8})[1]
    assert {c.pool for c in poor} == {"all"}
    assert all(e.group == p.group for e, p in zip(estimate_all(state), prompts, strict=True))


def test_a_prompt_that_fails_in_the_search_leaves_the_others():
    class Failing(SearchLaws):
        def sample(self, prompt, component, n, seed):
            if prompt.id == "p00":
                raise ModelError("non-finite logits")
            return super().sample(prompt, component, n, seed)

    config = search_config()
    state, log = audit_in_memory(config, PROMPTS, Failing(config))
    assert [p.prompt_id for p in plans(log)[1].prompts] == ["p01", "p02"]
    failed, *rest = estimate_all(state)
    assert failed.status == Status.FAILED and all(e.draws > 24 for e in rest)


def test_plans_that_would_weigh_by_what_was_not_scored_are_refused():
    state, log = audit()
    records = list(log.records)
    place = next(i for i, r in enumerate(records) if isinstance(r, RoundPlan) and r.round == 2)
    plan = records[place]
    assert isinstance(plan, RoundPlan)
    part = plan.prompts[0]
    assert part.components is not None
    fewer, none = part.components[:-1], None
    unscored = next(k for k in range(1, 8) if k not in part.components)
    counts = list(part.counts)
    counts[unscored] = 2
    for bad in (
        replace(part, components=fewer),
        replace(part, components=none),
        replace(part, counts=tuple(counts)),
    ):
        records[place] = replace(plan, prompts=(bad, *plan.prompts[1:]))
        with pytest.raises(StoreError, match="without scores of all components"):
            rebuild(state.config, PROMPTS, state.laws, records)


def test_laws_that_score_other_columns_than_asked_fail_the_batch():
    class Deaf(SearchLaws):
        def log_prob(self, prompt, tokens, components=None):
            return super().log_prob(prompt, tokens)

    laws = Deaf(search_config())
    tokens = laws.sample(PROMPTS[0], 1, 4, 1).tokens
    batch = Batch(prompt_id=PROMPTS[0].id, component=0, index=0, round=0, size=4, seed=1, components=(0, 2))
    with pytest.raises(ModelError, match=r"under components \[0, 2\] of those asked for have shape \(4, 8\)"):
        score(laws, PROMPTS[0], tokens, batch, Held.all_of(laws))
    right = score(SearchLaws(search_config()), PROMPTS[0], tokens, batch, Held.all_of(laws))
    assert np.array_equal(np.isnan(right).all(axis=0), [k not in (0, 2) for k in range(8)])


def test_the_files_a_search_leaves(tmp_path):
    budget = {"draws": 3000, "pilot": 24, "rounds": 2}
    config = search_config(4, method={"search_draws": 300}, budget=budget).at(tmp_path)
    laws = SearchLaws(config)
    prompts = grouped(GATES, ["g<b>", "g<b>", None])
    with RunStore.open(tmp_path / "run", make_manifest(config, prompts)) as store:
        executor = LocalExecutor(laws, WordJudge(), prompts)
        outcome = run_audit(config, prompts, executor.card, executor, store)
    written = json.loads((tmp_path / "run" / "estimates.json").read_text())
    search = written["search"]
    assert search == outcome.search and written["audit"]["search"]["draws"] == 900
    assert [c["name"] for c in search["cells"]] == list(config.component_names[1:])
    assert search["cells"][5]["values"] == {"layers": [2, 3], "coefficient": 1.0}
    assert set(search["chosen"]) == {p.id for p in prompts}
    for pool in search["pools"]:
        assert [row["component"] for row in pool["surface"]] == list(config.component_names)
        assert sum(row["hits"] for row in pool["surface"]) == pool["hits"]
        assert pool["gain"] > 0 and sum(pool["chosen"].values()) == pytest.approx(1.0)
        for prompt in pool["prompts"]:
            assert set(search["chosen"][prompt]) == set(pool["chosen"])
    assert [e["group"] for e in written["estimates"]] == ["g<b>", "g<b>", None]
    table = pq.read_table(tmp_path / "run" / "draws.parquet").to_pylist()
    later = [row for row in table if row["round"] > 0]
    assert len(table) == outcome.totals["draws"] and later
    assert all(sum(map(math.isnan, row["log_q"])) == 8 - 3 for row in later)
    hits = [json.loads(line) for line in (tmp_path / "run" / "hits.jsonl").read_text().splitlines()]
    assert all(h["share"] == 0 for h in hits if h["round"] == 0)
    by_prompt = {e["prompt_id"]: 0.0 for e in written["estimates"]}
    for hit in hits:
        by_prompt[hit["prompt_id"]] += hit["share"]
    for e in written["estimates"]:
        assert by_prompt[e["prompt_id"]] == pytest.approx(1.0 if e["estimate"] else 0.0)
    page = render_report(tmp_path / "run").read_text()
    assert "What did the search choose?" in page and "group g&lt;b&gt;" in page and "g<b>" not in page
    with RunStore.open(tmp_path / "run", make_manifest(config, prompts)) as store:
        again = run_audit(config, prompts, executor.card, executor, store)
    assert [e.to_json() for e in again.estimates] == [e.to_json() for e in outcome.estimates]
    assert again.search == outcome.search
