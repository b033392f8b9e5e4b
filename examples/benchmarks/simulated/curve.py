"""Whole audits on 1 to 64 replicas that sleep instead of computing: what part of the ideal speed is reached."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from simulated.world import MakeLaws, WordJudge, config_of, sleep_of, write_prompts
from tailrisk.audit.driver import run_audit
from tailrisk.audit.protocols import Silent
from tailrisk.audit.state import AuditState
from tailrisk.cluster import RayExecutor, ray_session
from tailrisk.config import ClusterConfig, PoolConfig
from tailrisk.prompts import load_prompts
from tailrisk.records import Batch, BatchFailure, BatchResult, Prompt, RoundPlan
from tailrisk.stats import Estimate
from tailrisk.store import RunStore, make_manifest

DRAWS_A_PROMPT = 128
START_S = 600.0


class _Watch(Silent):
    """Seconds from the first batch to the end of the last round, and the seconds that the batches slept."""

    def __init__(self, sleep: float) -> None:
        self._sleep = sleep
        self.began: float | None = None
        self.ended = 0.0
        self.work = 0.0
        self.batches = 0
        self.workers: set[str] = set()

    def round_started(self, plan: RoundPlan) -> None:
        self.began = self.began or time.monotonic()

    def batch_done(self, outcome: BatchResult | BatchFailure) -> None:
        assert isinstance(outcome, BatchResult), outcome
        self.work += sleep_of(self._sleep, outcome.batch.seed)
        self.batches += 1
        self.workers.add(outcome.worker)

    def round_finished(self, state: AuditState, estimates: Sequence[Estimate]) -> None:
        self.ended = time.monotonic()


def curve(replicas: Sequence[int], *, sleep: float, batches: int) -> Iterator[dict[str, Any]]:
    """One row a number of replicas; each replica gets about ``batches`` batches of ``sleep`` seconds each."""
    with ray_session(ClusterConfig(models=PoolConfig(num_cpus=0))):
        for n in replicas:
            yield _point(n, sleep, batches)


def _point(replicas: int, sleep: float, batches: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="scale-") as name:
        folder = Path(name)
        # Four batches a prompt: two rounds of two components.
        count = max(1, replicas * batches // 4)
        write_prompts(folder / "prompts.jsonl", count)
        config = config_of(folder, draws=DRAWS_A_PROMPT * count, models=replicas)
        prompts = load_prompts(config)
        watch = _Watch(sleep)
        with RayExecutor(config, prompts, laws_factory=MakeLaws(sleep), judge_factory=WordJudge) as executor:
            _all_awake(executor, prompts, replicas)
            cpu = time.process_time()
            with RunStore.open(config.run_folder, make_manifest(config, prompts, {})) as store:
                outcome = run_audit(config, prompts, executor.card, executor, store, observers=[watch])
            cpu = time.process_time() - cpu
    assert watch.began is not None
    seconds = watch.ended - watch.began
    return {
        "replicas": replicas,
        "workers_seen": len(watch.workers),
        "prompts": count,
        "draws": outcome.totals["draws"],
        "batches": watch.batches,
        "work_s": watch.work,
        "ideal_s": watch.work / replicas,
        "seconds": seconds,
        "efficiency": watch.work / replicas / seconds,
        "driver_cpu_s": cpu,
    }


def _all_awake(executor: RayExecutor, prompts: Sequence[Prompt], replicas: int) -> None:
    """Batches that count for nothing until every replica has answered: starting processes is not measured."""
    seen: set[str] = set()
    deadline = time.monotonic() + START_S
    turn = 0
    while len(seen) < replicas:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{len(seen)} of {replicas} replicas answered within {START_S:.0f} s")
        some = [
            Batch(
                prompt_id=prompts[0].id, component=0, index=turn * 2 * replicas + i, round=0, size=2, seed=i
            )
            for i in range(2 * replicas)
        ]
        for outcome in executor.run(some):
            assert isinstance(outcome, BatchResult), outcome
            seen.add(outcome.worker)
        turn += 1
