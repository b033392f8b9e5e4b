"""Cost and memory of a draw do not grow with the audit: growth is looked for, not speed."""

from __future__ import annotations

import gc
import os
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "benchmarks"))

from simulated import page
from simulated.world import MakeLaws, TableLaws, WordJudge, config_of, risk_of, write_prompts

from tailrisk.audit.driver import run_audit
from tailrisk.audit.local import LocalExecutor
from tailrisk.audit.planner import plan_round
from tailrisk.audit.state import AuditState
from tailrisk.prompts import load_prompts
from tailrisk.records import BatchResult
from tailrisk.stats.allocators import PromptNeeds, get_allocator
from tailrisk.store import RunStore, make_manifest, replay


@pytest.fixture
def no_sync(monkeypatch):
    """The disk is not what is measured here."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


def audit(folder: Path, prompts: int):
    folder.mkdir()
    write_prompts(folder / "prompts.jsonl", prompts)
    config = config_of(folder, draws=100 * prompts)
    listed = load_prompts(config)
    executor = LocalExecutor(TableLaws(), WordJudge(), listed)
    with RunStore.open(config.run_folder, make_manifest(config, listed, {})) as store:
        return run_audit(config, listed, executor.card, executor, store)


def seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def least_growth(cost: Callable[[int, int], float], small: int, large: int) -> float:
    """Cost of a piece at ``large`` over that at ``small``: the least of three tries, for machines are noisy."""
    found = []
    for turn in range(3):
        found.append((cost(large, turn) / large) / (cost(small, turn) / small))
        if found[-1] < 1.3:
            break
    return min(found)


def test_a_draw_costs_the_same_with_four_times_the_prompts(tmp_path, no_sync):
    first = audit(tmp_path / "warm", 8)
    assert first.totals["draws"] == 800 and first.totals["rounds"] == 2

    def cost(prompts: int, turn: int) -> float:
        return seconds(lambda: audit(tmp_path / f"{prompts}-{turn}", prompts))

    assert least_growth(cost, 30, 120) < 1.5


def test_simulated_laws_are_what_they_say(tmp_path, no_sync):
    outcome = audit(tmp_path / "run", 64)
    found = np.array([e.estimate for e in outcome.estimates])
    truth = np.array([risk_of(e.prompt_id) for e in outcome.estimates])
    error = np.array([e.standard_error for e in outcome.estimates])
    assert abs((found - truth).sum()) < 4 * np.sqrt(np.square(error).sum())
    laws = MakeLaws()()
    (prompt,) = load_prompts(config_of(tmp_path / "run", draws=100))[5:6]
    tokens = laws.sample(prompt, 1, 50, 3).tokens
    np.testing.assert_array_equal(laws.log_prob(prompt, tokens)[:, 1], laws.sample(prompt, 1, 50, 3).log_q)


def test_a_draw_leaves_its_numbers_in_memory_and_nothing_else(tmp_path):
    def held(prompts: int, batch: int) -> tuple[int, int]:
        """Draws in a state, and the bytes that the results of their batches left behind."""
        write_prompts(tmp_path / "prompts.jsonl", prompts)
        config = config_of(tmp_path, draws=1000 * prompts, pilot=2 * batch, batch=batch)
        listed = load_prompts(config)
        executor = LocalExecutor(TableLaws(), WordJudge(), listed)
        state = AuditState(config, listed, executor.card)
        plan = plan_round(state)
        assert plan is not None
        state.add_plan(plan)
        gc.collect()
        tracemalloc.start()
        for outcome in executor.run(plan.batches):
            state.add_outcome(outcome)
        del outcome
        gc.collect()
        size, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert not state.pending
        return state.draws, size

    (few, before), (many, after) = held(20, 50), held(20, 400)
    assert many == 8 * few
    # Two scores, the sampler's own log-probability and the verdict: 25 bytes.
    assert 25 <= (after - before) / (many - few) < 32


def test_keys_go_through_allocator_accumulators_and_index_at_the_same_cost(tmp_path, no_sync):
    def cost(prompts: int, turn: int) -> float:
        """Of the books alone: results are made beforehand."""
        folder = tmp_path / f"{prompts}-{turn}"
        folder.mkdir()
        write_prompts(folder / "prompts.jsonl", prompts)
        config = config_of(folder, draws=1000 * prompts, pilot=4, batch=1)
        listed = load_prompts(config)
        executor = LocalExecutor(TableLaws(), WordJudge(), listed)
        state = AuditState(config, listed, executor.card)
        plan = plan_round(state)
        assert plan is not None and len(plan.batches) == 4 * prompts
        outcomes = list(executor.run(plan.batches))
        manifest = make_manifest(config, listed, {})

        def books() -> None:
            ones = np.ones(prompts)
            needs = PromptNeeds(ones, ones, np.full(prompts, 40), np.zeros(prompts, dtype=np.int64))
            assert get_allocator("relative")(needs, 4 * prompts).sum() == 4 * prompts
            with RunStore.open(config.run_folder, manifest) as store:
                store.append_plan(plan)
                state.add_plan(plan)
                for outcome in outcomes:
                    assert isinstance(outcome, BatchResult) and store.append_result(outcome)
                    assert state.add_outcome(outcome)
            with RunStore.open(config.run_folder, manifest) as store:
                assert len(store.settled) == 4 * prompts and store.missing() == []

        return seconds(books)

    cost(20, 9)
    assert least_growth(cost, 250, 1000) < 1.6


def test_a_log_is_read_for_some_kinds_alone(tmp_path, no_sync):
    audit(tmp_path / "run", 8)
    folder = tmp_path / "run" / "scale"
    for kinds in ({"plan"}, {"note", "batch"}, set[str]()):
        some = list(replay(folder, kinds))
        everything = [r for r in replay(folder) if type(r).__name__ in _names(kinds)]
        assert len(some) == len(everything) and [type(r) for r in some] == [type(r) for r in everything]


def _names(kinds: set[str]) -> set[str]:
    return {{"plan": "RoundPlan", "batch": "BatchResult", "note": "Note"}[kind] for kind in kinds}


def test_the_page_keeps_the_words_around_its_tables(tmp_path):
    row = {"replicas": 4, "batches": 96, "draws": 3072, "work_s": 96.0, "ideal_s": 24.0, "seconds": 25.0}
    results = {"curve": [{**row, "efficiency": 0.96, "driver_cpu_s": 1.0}]}
    page.write(tmp_path, results)
    path = tmp_path / "scale.md"
    path.write_text("# Before\n\n" + path.read_text("utf-8") + "after\n", "utf-8")
    page.write(tmp_path, results)
    text = path.read_text("utf-8")
    assert text.startswith("# Before\n") and text.endswith("after\n") and text.count("| 0.960 |") == 1
    assert "<svg" in (tmp_path / "scale.svg").read_text("utf-8")
