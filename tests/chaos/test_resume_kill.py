"""``kill -9`` of the driver at random points, resumed each time: nothing lost, the same numbers."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tailrisk.records import BatchResult, RoundPlan
from tailrisk.store import replay

CHILD = Path(__file__).parent / "resume_child.py"
KILLS = 3


def start(folder: Path, seed: int, sleep: float) -> subprocess.Popen:
    env = {**os.environ, "PYTHONPATH": str(CHILD.parents[1]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(CHILD), str(folder), str(seed), str(sleep)]
    return subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(folder: Path, seed: int, sleep: float = 0.0) -> None:
    child = start(folder, seed, sleep)
    _, said = child.communicate(timeout=120)
    assert child.returncode in (0, 3), said.decode()


def log_bytes(folder: Path) -> int:
    return sum(p.stat().st_size for p in (folder / "log").glob("*.jsonl")) if folder.exists() else 0


def estimates(folder: Path) -> list:
    return json.loads((folder / "estimates.json").read_text())["estimates"]


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="there is no SIGKILL")
def test_killed_and_resumed_is_undisturbed(tmp_path: Path):
    seed = 17
    calm, torn = tmp_path / "calm", tmp_path / "torn"
    finish(calm, seed)
    whole = log_bytes(calm)
    rng = random.Random(5)
    # Points are places in the log, not moments: a busy machine changes nothing.
    points = sorted(rng.uniform(0.02, 0.95) * whole for _ in range(KILLS))
    kills = 0
    for point in points:
        child = start(torn, seed, 0.03)
        deadline = time.monotonic() + 120
        while child.poll() is None and log_bytes(torn) < point:
            assert time.monotonic() < deadline, "the child made no progress"
            time.sleep(0.002)
        if child.poll() is None:
            child.send_signal(signal.SIGKILL)
            kills += 1
        child.communicate(timeout=30)
        assert child.returncode in (-signal.SIGKILL, 0, 3)
    assert kills == KILLS, "every kill must hit a running audit"
    finish(torn, seed)

    assert estimates(torn) == estimates(calm)
    planned = [b.key for r in replay(torn) if isinstance(r, RoundPlan) for b in r.batches]
    sizes = {b.key: b.size for r in replay(torn) if isinstance(r, RoundPlan) for b in r.batches}
    logged = [r.batch.key for r in replay(torn) if isinstance(r, BatchResult)]
    assert sorted(logged) == sorted(planned) and len(set(planned)) == len(planned)
    table = pq.read_table(torn / "draws.parquet")
    keys = list(zip(table["batch_key"].to_pylist(), table["draw"].to_pylist(), strict=True))
    assert len(set(keys)) == len(keys) == sum(sizes.values())
    assert {k for k, _ in keys} == set(planned)
    undisturbed = pq.read_table(calm / "draws.parquet").sort_by(
        [("batch_key", "ascending"), ("draw", "ascending")]
    )
    assert table.sort_by([("batch_key", "ascending"), ("draw", "ascending")]).equals(undisturbed)


def test_a_finished_run_is_left_as_it_is(tmp_path: Path):
    folder = tmp_path / "run"
    finish(folder, 3)
    before, size = (folder / "estimates.json").read_text(), log_bytes(folder)
    finish(folder, 3)
    after = json.loads((folder / "estimates.json").read_text())
    assert after["estimates"] == json.loads(before)["estimates"]
    assert log_bytes(folder) == size
