"""The driver's books by themselves: a million batches of one draw through plan, allocator, accumulators and index.

No log and no worker: what a batch costs there is in the rows of whole audits. Results are made as they are handed in,
outside of the time that counts.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from simulated.whole import peak_mib
from simulated.world import TableLaws, config_of, write_prompts
from tailrisk.audit.planner import plan_round
from tailrisk.audit.protocols import LawCard
from tailrisk.audit.state import AuditState
from tailrisk.garbage import collected_seldom
from tailrisk.prompts import load_prompts
from tailrisk.records import BatchResult
from tailrisk.stats.allocators import PromptNeeds, get_allocator

EACH = 4
"""Batches of a prompt, two for each component."""


def keys(batches: int) -> dict[str, Any]:
    """Seconds for that many batches, and the most memory that this process held."""
    with collected_seldom():
        return _keys(batches)


def _keys(batches: int) -> dict[str, Any]:
    prompts = batches // EACH
    with tempfile.TemporaryDirectory(prefix="scale-") as name:
        folder = Path(name)
        write_prompts(folder / "prompts.jsonl", prompts)
        config = config_of(folder, draws=1000 * prompts, pilot=EACH, batch=1)
        listed = load_prompts(config)
    state = AuditState(config, listed, LawCard.of(TableLaws()))
    spent = {"allocator": 0.0, "plan": 0.0, "accumulators": 0.0}
    index: dict[str, int] = {}

    began = time.process_time()
    ones = np.ones(prompts)
    needs = PromptNeeds(ones, ones, np.full(prompts, 40), np.zeros(prompts, dtype=np.int64))
    assert get_allocator("relative")(needs, EACH * prompts).sum() == EACH * prompts
    spent["allocator"] = time.process_time() - began

    began = time.process_time()
    plan = plan_round(state)
    assert plan is not None and len(plan.batches) == batches
    state.add_plan(plan)
    spent["plan"] = time.process_time() - began

    tokens = [np.array([1, 2, 0], dtype=np.int32)]
    for batch in plan.batches:
        result = BatchResult(
            batch=batch,
            tokens=tokens,
            texts=["no"],
            finished=np.ones(1, dtype=np.bool_),
            log_q=np.full((1, 2), -3.0),
            log_q_sample=np.full(1, -3.0),
            verdicts=np.zeros(1, dtype=np.int8),
            scores=np.zeros(1),
            judge_errors=[""],
        )
        began = time.perf_counter()
        index[batch.key] = 0
        fresh = state.add_outcome(result)
        spent["accumulators"] += time.perf_counter() - began
        assert fresh
    assert len(index) == batches and not state.pending and state.draws == batches
    return {"keys": batches, "seconds": sum(spent.values()), "of_it": spent, "peak_mib": peak_mib()}


if __name__ == "__main__":
    print(json.dumps(keys(int(sys.argv[1]))))
