"""Light laws for the ranks of a sharded worker: nobody goes on without the others, as in a model's layers.

Faults are named by the prompt's id, and are the last rank's alone: ``hang-*`` never returns the first time, ``apart-*``
draws something else, ``raise-*`` raises.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from fakeworkers import FakeLaws

from tailrisk.models import sharding
from tailrisk.records import Prompt, Samples


class ShardLaws(FakeLaws):
    def sample(self, prompt: Prompt, component: int, n: int, seed: int) -> Samples:
        import torch
        import torch.distributed as dist

        kind = prompt.id.split("-")[0] if dist.get_rank() == dist.get_world_size() - 1 else ""
        if kind == "raise":
            raise RuntimeError("this rank has no memory left")
        if kind == "hang" and not (hung := self.folder / "hung").exists():
            hung.touch()
            time.sleep(1e6)
        count = torch.ones(1)
        dist.all_reduce(count)
        assert int(count) == dist.get_world_size()
        samples = super().sample(prompt, component, n, seed)
        sharding.agree(np.concatenate(samples.tokens).astype(np.int64) + (kind == "apart"))
        return samples

    def _fault(self, prompt_id: str) -> None:
        pass


@dataclass
class MakeShardLaws:
    folder: Path

    def __call__(self) -> ShardLaws:
        return ShardLaws(self.folder)
