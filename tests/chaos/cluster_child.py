"""A driver of a whole audit on somebody else's cluster, to be killed: ``python cluster_child.py JSON``.

It kills its own workers as it goes. Prints a line when the first workers are ready, and one with the exit code.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from chaos.faultylaws import FaultyJudge, MakeFaulty
from truth.tablelaws import NAMES, toy_config, toy_prompts

from tailrisk.audit.driver import run_audit
from tailrisk.audit.protocols import Silent
from tailrisk.cluster import RayExecutor, ray_session
from tailrisk.config import Config
from tailrisk.records import BatchFailure, BatchResult, Prompt
from tailrisk.store import RunStore, make_manifest


@dataclass(frozen=True)
class Order:
    """``every``: after so many batches the worker of the last one is killed (0: none is). ``marks``: a folder for
    attempts and for the numbers of those killed. Faults as in ``faultylaws``, by prompt id."""

    address: str
    folder: str
    marks: str
    gates: tuple[float, ...]
    draws: int
    seed: int = 3
    sleep: float = 0.0
    every: int = 0
    faults: Mapping[str, str] | None = None
    judge_faults: Mapping[str, str] | None = None
    judge_rate: float = 0.0
    components: tuple[str, ...] = NAMES
    batch: int = 10
    rounds: int = 3
    workers: int = 3
    retries: int = 3
    timeout_s: float = 60.0

    @property
    def prompts(self) -> list[Prompt]:
        return toy_prompts(self.gates)

    @property
    def config(self) -> Config:
        workers = {"min": self.workers, "max": self.workers, "num_cpus": 1}
        return toy_config(
            self.components,
            seed=self.seed,
            budget={"draws": self.draws, "pilot": 40, "batch": self.batch, "rounds": self.rounds},
            stop={"log_width": 0.1},
            cluster={
                "address": self.address,
                "models": workers,
                "judges": {"min": 1, "max": 2, "num_cpus": 0},
                "retries": self.retries,
                "batch_timeout_s": self.timeout_s,
            },
        )

    @property
    def make_laws(self) -> MakeFaulty:
        return MakeFaulty(Path(self.marks), self.components, self.faults or {}, self.sleep)

    @property
    def judge(self) -> FaultyJudge:
        faults = self.judge_faults or {}
        by_text = {p.text: faults[p.id] for p in self.prompts if p.id in faults}
        return FaultyJudge(Path(self.marks), by_text, self.judge_rate)


class Killer(Silent):
    """Kills the process that made a batch, once ``every`` batches have come since the last one that it killed."""

    def __init__(self, every: int, marks: Path) -> None:
        self._every, self._marks, self._count = every, marks, 0
        self._killed: set[int] = set()

    def batch_done(self, outcome: BatchResult | BatchFailure) -> None:
        if not self._every or not isinstance(outcome, BatchResult):
            return
        self._count += 1
        pid = int(outcome.worker.rpartition(":")[2])
        # What a dead one had done before it died may come in after it.
        if self._count >= self._every and pid not in self._killed:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                self._count = 0
                self._killed.add(pid)
                with (self._marks / "killed").open("a") as file:
                    file.write(f"{pid}\n")


def main(order: Order) -> int:
    config, prompts = order.config, order.prompts
    with (
        RunStore.open(Path(order.folder), make_manifest(config, prompts)) as store,
        ray_session(config.cluster),
        RayExecutor(
            config, prompts, laws_factory=order.make_laws, judge_factory=lambda: order.judge
        ) as executor,
    ):
        print("ready", flush=True)
        killer = Killer(order.every, Path(order.marks))
        code = run_audit(config, prompts, executor.card, executor, store, observers=[killer]).exit_code
    print(f"exit {code}", flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main(Order(**json.loads(sys.argv[1]))))
