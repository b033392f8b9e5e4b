r"""Hours of trouble in minutes: one whole audit on three Ray nodes that are lost and replaced while it runs.

    python examples/benchmarks/soak.py --quick --json soak.json
    python examples/benchmarks/soak.py --minutes 30

All nodes are on this machine, and the laws are the tests' exact toy, slowed down to a second or so a batch. At random
moments, 20 to 40 seconds apart (in the quick form, of two minutes or more, 5 to 10), a worker is killed, or a node
with all that runs on it, and a new node joins; at half time the driver is killed and started again. The judge ends or
hangs its process on one call in a hundred, once; one prompt ends its worker each time, another one raises.

Afterwards the log must hold every planned batch once, but for those of the two bad prompts, and every other
estimate must be bit-equal to that of an undisturbed audit in one process. Exit status 1: it does not hold.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
TESTS = HERE.parents[1] / "tests"
# The toy and the nodes are those of the tests, so that there is one of each.
sys.path[:0] = [str(TESTS)]

from chaos.audits import calm, check_accounts, check_same  # noqa: E402
from chaos.cluster_child import Order  # noqa: E402
from chaos.faultylaws import tries  # noqa: E402
from chaos.nodes import Nodes  # noqa: E402

GATES = (0.3, 0.2, 0.1, 1e-2, 0.25, 1e-3)
BAD = {"p02": "always crash", "p04": "always raise"}
WORKERS = 3
BATCH = 10
DRAWS_A_MINUTE = 1300
NODE_SHARE = 0.25
"""Of the blows that fall on a whole node."""


class Storm:
    """Blows at random moments; ``struck`` counts them by kind."""

    def __init__(self, nodes: Nodes, pause_s: tuple[float, float], seed: int) -> None:
        self.struck = {"worker": 0, "node": 0, "driver": 0}
        self._nodes, self._pause_s, self._rng = nodes, pause_s, random.Random(seed)
        self._next = time.monotonic() + self._rng.uniform(*pause_s)

    def blow(self) -> None:
        """Strikes if it is time to."""
        if time.monotonic() < self._next:
            return
        if self._rng.random() < NODE_SHARE:
            self._nodes.remove()
            self._nodes.add()
            self.struck["node"] += 1
        else:
            pids = [pid for pid in self._nodes.workers() if pid and _alive(pid)]
            if pids:
                os.kill(self._rng.choice(pids), signal.SIGKILL)
                self.struck["worker"] += 1
        self._next = time.monotonic() + self._rng.uniform(*self._pause_s)


def _alive(pid: int) -> bool:
    return Path(f"/proc/{pid}/exe").exists()


def soak(minutes: float, pause_s: tuple[float, float], seed: int, folder: Path) -> dict[str, Any]:
    """One audit under fire, and what is to be said of it; ``held`` is '' or what does not hold."""
    draws = max(2 * DRAWS_A_MINUTE, round(DRAWS_A_MINUTE * minutes))
    sleep = 0.9 * 60 * minutes * WORKERS * BATCH / draws
    with Nodes(count=2, cpus=2) as nodes:
        order = Order(
            address=nodes.address,
            folder=str(folder / "storm"),
            marks=str(folder),
            gates=GATES,
            draws=draws,
            seed=seed,
            sleep=sleep,
            faults=BAD,
            judge_rate=0.01,
            workers=WORKERS,
            batch=BATCH,
            timeout_s=max(20.0, 10 * sleep),
        )
        began = time.monotonic()
        storm = Storm(nodes, pause_s, seed)
        code = _through(storm, nodes, order, folder / "driver.log", minutes)
    took = time.monotonic() - began
    if code != 3:
        tail = (folder / "driver.log").read_text(errors="replace")[-2000:]
        return {"missed": f"the driver ended with exit code {code}:\n{tail}", "blows": storm.struck}
    calm(order, folder / "calm")
    missed = ""
    failed: dict[str, str] = {}
    try:
        failed = check_accounts(Path(order.folder))
        assert {key.split("/")[0] for key in failed} == set(BAD), failed
        check_same(Path(order.folder), folder / "calm", frozenset(BAD))
    except AssertionError as error:
        missed = f"not as it would have been undisturbed: {error}"
    totals = json.loads((Path(order.folder) / "estimates.json").read_text())["audit"]
    attempts = tries(folder)
    return {
        "missed": missed,
        "minutes": round(took / 60, 1),
        "blows": storm.struck,
        "seconds_a_batch": round(sleep, 2),
        "draws": totals["draws"],
        "rounds": totals["rounds"],
        "batches_planned": len({what for what in attempts if "/" in what}),
        "attempts_at_batches": sum(n for what, n in attempts.items() if "/" in what),
        "judge_faults": sum(n > 0 for what, n in attempts.items() if "/" not in what),
        "isolated": sorted({key.split("/")[0] for key in failed}),
        "duplicates": totals["duplicates"],
    }


def _through(storm: Storm, nodes: Nodes, order: Order, log: Path, minutes: float) -> int:
    """Drives the audit to its end; at half time the driver is killed and another one goes on."""
    began = time.monotonic()
    half, limit = began + 30 * minutes, began + 60 * (3 * minutes + 3)
    child = TESTS / "chaos" / "cluster_child.py"
    command = [sys.executable, str(child), json.dumps(asdict(order))]
    with log.open("ab") as out:
        driver = subprocess.Popen(command, env=nodes.variables, stdout=out, stderr=out)
        try:
            while driver.poll() is None:
                now = time.monotonic()
                if now > limit:
                    print("it takes three times as long as it should: given up", file=sys.stderr)
                    return -1
                if now > half and not storm.struck["driver"]:
                    driver.kill()
                    driver.wait(timeout=30)
                    storm.struck["driver"] += 1
                    driver = subprocess.Popen(command, env=nodes.variables, stdout=out, stderr=out)
                storm.blow()
                time.sleep(0.1)
            return driver.returncode
        finally:
            driver.kill()
            driver.wait(timeout=30)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=30.0, help="how long the audit takes, about")
    parser.add_argument("--quick", action="store_true", help="two minutes, and blows four times as often")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    args = parser.parse_args(argv)
    minutes, pause_s = (2.0, (5.0, 10.0)) if args.quick else (args.minutes, (20.0, 40.0))
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    found = soak(minutes, pause_s, args.seed, folder)
    for name, value in found.items():
        print(f"{name}: {value}")
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    if found["missed"]:
        print(f"MISSED; what is left is in {folder}", file=sys.stderr)
        return 1
    shutil.rmtree(folder)
    print("held: every batch once, every estimate bit-equal")
    return 0


if __name__ == "__main__":
    sys.exit(main())
