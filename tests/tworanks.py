"""A model over two processes: a script is run in each, and does the jobs of ``FOLDER/jobs.json`` in order."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SECONDS = 300


def run_two(script: Path, folder: Path) -> None:
    """``python SCRIPT FOLDER RANK`` for both ranks, to their ends."""
    env = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]),
    }
    processes = [
        subprocess.Popen(
            [sys.executable, str(script), str(folder), str(rank)], env=env, stderr=subprocess.PIPE, text=True
        )
        for rank in range(2)
    ]
    try:
        for process in processes:
            _, said = process.communicate(timeout=SECONDS)
            assert process.returncode == 0, said[-3000:]
    finally:
        for process in processes:
            process.kill()  # one that waits for another that has failed


def do_jobs(folder: Path, rank: int, do: Callable[[dict[str, Any]], None]) -> None:
    """In a rank: joins the other for each job, as the job's ``parallel`` says, and calls ``do`` with the job."""
    import torch

    from tailrisk.config import Parallel
    from tailrisk.models import sharding

    torch.set_num_threads(1)
    for job in json.loads((folder / "jobs.json").read_text()):
        place = folder / f"{job['name']}.endpoint"
        if rank == 0:
            written = place.with_suffix(".new")
            written.write_text(sharding.meeting_place())
            written.replace(place)
        while not place.exists():
            time.sleep(0.005)
        sharding.join(Parallel(*job["parallel"]), rank, place.read_text(), 120.0)
        do(job)
        sharding.leave()
