"""One rank of a sharded model: ``python shardrank.py FOLDER RANK`` does the jobs in ``FOLDER/jobs.json`` in order and
leaves what it drew and scored in ``FOLDER/JOB.RANK.pt``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from tworanks import do_jobs

from tailrisk.config import Config
from tailrisk.errors import ClusterError
from tailrisk.proposals import build_laws
from tailrisk.records import Prompt

PROMPT = Prompt(id="p", messages=({"role": "user", "content": "w0 w1 w4"},))
DRAWS = 24


def config_of(model: Path, proposals: list[dict[str, Any]]) -> Config:
    return Config.model_validate(
        {
            "target": {"model": str(model), "dtype": "float32", "sampling": {"max_new_tokens": 6}},
            "prompts": {"path": "unused"},
            "judge": {"kind": "refusal"},
            "proposals": proposals,
        }
    )


def drawn(config: Config, seed: int = 5) -> list[tuple[Any, Any, Any]]:
    """Tokens, log-probabilities when drawn, and [draws, laws] when scored, by law."""
    laws = build_laws(config)
    found = []
    for k in range(len(laws.names)):
        samples = laws.sample(PROMPT, k, DRAWS, seed + k)
        found.append((samples.tokens, samples.log_q, laws.log_prob(PROMPT, samples.tokens)))
    return found


def main(folder: Path, rank: int) -> None:
    def do(job: dict[str, Any]) -> None:
        seed = 5 + rank * job.get("apart", 0)
        try:
            found = drawn(config_of(folder / job["model"], job["proposals"]), seed)
        except ClusterError as error:
            found = str(error)
        torch.save(found, folder / f"{job['name']}.{rank}.pt")

    do_jobs(folder, rank, do)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
