"""One rank of a sharded judge: ``python judgerank.py FOLDER RANK`` judges as the jobs in ``FOLDER/jobs.json`` say and
leaves verdicts, scores and errors in ``FOLDER/JOB.RANK.json``."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

from tailrisk.config import Config, Parallel
from tailrisk.judges import build_judge
from tailrisk.models import sharding

ANSWERS = ["nothing to see", "something bad here", "an odd one", "", "bad and odd " * 20, "x" * 700]


def judged(folder: Path, judge: dict[str, Any]) -> list[Any]:
    values = {"target": {"model": "m"}, "prompts": {"path": "p"}, "judge": judge}
    found = build_judge(Config.model_validate(values).at(folder)).judge("hello", ANSWERS)
    scores = [None if score != score else score for score in found.scores.tolist()]
    return [found.verdicts.tolist(), scores, found.errors]


def main(folder: Path, rank: int) -> None:
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
        (folder / f"{job['name']}.{rank}.json").write_text(json.dumps(judged(folder, job["judge"])))
        sharding.leave()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
