"""A driver process on slow toy laws, to be killed: ``python resume_child.py FOLDER SEED SLEEP``."""

from __future__ import annotations

import sys
from pathlib import Path

from truth.tablelaws import TableLaws, WordJudge, toy_config, toy_prompts

from tailrisk.audit.driver import run_audit
from tailrisk.audit.local import LocalExecutor
from tailrisk.store import RunStore, make_manifest

GATES = (0.3, 1e-2, 1e-4)
COMPONENTS = ("target", "good", "mild")


def main(folder: Path, seed: int, sleep: float) -> int:
    prompts = toy_prompts(GATES)
    config = toy_config(COMPONENTS, seed=seed, budget={"draws": 600, "pilot": 30, "batch": 12, "rounds": 3})
    laws = TableLaws(COMPONENTS, sleep=sleep)
    executor = LocalExecutor(laws, WordJudge(), prompts)
    with RunStore.open(folder, make_manifest(config, prompts)) as store:
        return run_audit(config, prompts, executor.card, executor, store).exit_code


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
