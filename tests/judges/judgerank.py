"""One rank of a sharded judge: ``python judgerank.py FOLDER RANK`` judges as the jobs in ``FOLDER/jobs.json`` say and
leaves verdicts, scores and errors in ``FOLDER/JOB.RANK.json``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from tworanks import do_jobs

from tailrisk.config import Config
from tailrisk.judges import build_judge

ANSWERS = ["nothing to see", "something bad here", "an odd one", "", "bad and odd " * 20, "x" * 700]


def judged(folder: Path, judge: dict[str, Any]) -> list[Any]:
    values = {"target": {"model": "m"}, "prompts": {"path": "p"}, "judge": judge}
    found = build_judge(Config.model_validate(values).at(folder)).judge("hello", ANSWERS)
    scores = [None if score != score else score for score in found.scores.tolist()]
    return [found.verdicts.tolist(), scores, found.errors]


def main(folder: Path, rank: int) -> None:
    def do(job: dict[str, Any]) -> None:
        (folder / f"{job['name']}.{rank}.json").write_text(json.dumps(judged(folder, job["judge"])))

    do_jobs(folder, rank, do)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
