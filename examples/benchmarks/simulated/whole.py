"""A whole audit with simulated laws, phase by phase: CPU of the driver, wall time, memory.

CPU is that of the driver's process with all its threads, Ray's among them; the workers and Ray's own servers are
other processes. So is the one that makes estimates beside the driver, which is told apart. Memory is the most that the
driver's process has held so far.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from simulated.world import MakeLaws, WordJudge, config_of, cpu_of, risk_of, write_prompts
from tailrisk.audit import estimating
from tailrisk.audit.driver import run_audit
from tailrisk.audit.outcome import AuditOutcome
from tailrisk.audit.protocols import Silent
from tailrisk.audit.state import AuditState
from tailrisk.cluster import RayExecutor, ray_session
from tailrisk.config import BudgetConfig
from tailrisk.prompts import load_prompts
from tailrisk.records import BatchFailure, BatchResult, RoundPlan
from tailrisk.report import render_report
from tailrisk.stats import Estimate
from tailrisk.store import RunStore, make_manifest

FEW = 100
"""Draws a prompt up to which one round follows the pilot, so that none of them is tiny."""


class Clock(Silent):
    """Adds up what goes by between the events of an audit, by the phase that each ends."""

    def __init__(self) -> None:
        self.phases: dict[str, dict[str, float]] = {}
        self.batches = 0
        self._cpu, self._wall = time.process_time(), time.monotonic()

    def mark(self, phase: str) -> None:
        cpu, wall = time.process_time(), time.monotonic()
        row = self.phases.setdefault(phase, {"cpu_s": 0.0, "wall_s": 0.0, "peak_mib": 0.0})
        row["cpu_s"] += cpu - self._cpu
        row["wall_s"] += wall - self._wall
        self._cpu, self._wall = cpu, wall
        if not phase.startswith("batch"):
            row["peak_mib"] = peak_mib()

    def round_started(self, plan: RoundPlan) -> None:
        self.mark("planning")

    def batch_done(self, outcome: BatchResult | BatchFailure) -> None:
        self.batches += 1

    def round_finished(self, state: AuditState, estimates: Sequence[Estimate]) -> None:
        self.mark("rounds")

    def finished(self, outcome: AuditOutcome) -> None:
        self.mark("results")


def whole_audit(draws: int, *, a_prompt: int, replicas: int, sleep: float) -> dict[str, Any]:
    """``draws``, so many ``a_prompt``: read, plan, run, log, estimate, write, report."""
    with tempfile.TemporaryDirectory(prefix="scale-") as name:
        folder = Path(name)
        write_prompts(folder / "prompts.jsonl", draws // a_prompt)
        rounds = {} if a_prompt <= FEW else {"rounds": BudgetConfig().rounds}
        config = config_of(folder, draws=draws, models=replicas, **rounds)
        with ray_session(config.cluster):
            return _measured(folder, config, sleep)


def _measured(folder: Path, config: Any, sleep: float) -> dict[str, Any]:
    clock = Clock()
    prompts = load_prompts(config)
    manifest = make_manifest(config, prompts, {})
    clock.mark("prompts")
    with RayExecutor(config, prompts, laws_factory=MakeLaws(sleep), judge_factory=WordJudge) as executor:
        clock.mark("workers")
        with RunStore.open(config.run_folder, manifest) as store:
            outcome = run_audit(config, prompts, executor.card, executor, store, observers=[clock])
        beside = executor.beside.start(cpu_of, None).value() if len(prompts) >= estimating.MANY else 0.0
    clock.mark("closing")
    render_report(config.run_folder)
    clock.mark("report")
    draws = outcome.totals["draws"]
    counted = {name: row for name, row in clock.phases.items() if name != "workers"}
    return {
        "draws": draws,
        "budget": config.budget.draws,
        "prompts": len(prompts),
        "replicas": config.cluster.models.max,
        "sleep_s": sleep,
        "rounds": outcome.totals["rounds"],
        "batches": clock.batches,
        "draws_a_batch": draws / clock.batches,
        "statuses": outcome.totals["statuses"],
        "bias_z": _bias(outcome.estimates),
        "phases": clock.phases,
        "beside_us_a_draw": 1e6 * beside / draws,
        "cpu_us_a_draw": 1e6 * sum(row["cpu_s"] for row in counted.values()) / draws,
        "wall_s": sum(row["wall_s"] for row in counted.values()),
        "peak_mib": peak_mib(),
        "files_mib": {p.name: _size(p) for p in sorted(config.run_folder.iterdir())},
    }


def _bias(estimates: Sequence[Estimate]) -> float:
    """Standard errors between the mean estimate and the mean truth, over all prompts."""
    found = np.array([e.estimate - risk_of(e.prompt_id) for e in estimates])
    return float(found.mean() / (found.std(ddof=1) / np.sqrt(len(found))))


def _size(path: Path) -> float:
    files = [path] if path.is_file() else path.rglob("*")
    return round(sum(f.stat().st_size for f in files) / 2**20, 2)


def peak_mib() -> float:
    """The most memory that this process has held so far."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise OSError("/proc/self/status has no VmHWM: the benchmark needs Linux")


if __name__ == "__main__":
    import sys

    given = json.loads(sys.argv[1])
    print(json.dumps(whole_audit(**given)))
