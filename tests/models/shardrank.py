"""One rank of a sharded model: ``python shardrank.py FOLDER RANK`` does the jobs in ``FOLDER/jobs.json`` in order and
leaves what it drew and scored in ``FOLDER/JOB.RANK.pt``."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

from tailrisk.config import Config, Parallel
from tailrisk.errors import ClusterError
from tailrisk.models import sharding
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
        seed = 5 + rank * job.get("apart", 0)
        try:
            found = drawn(config_of(folder / job["model"], job["proposals"]), seed)
        except ClusterError as error:
            found = str(error)
        torch.save(found, folder / f"{job['name']}.{rank}.pt")
        sharding.leave()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
