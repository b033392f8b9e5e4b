"""Several processes with the whole model each, gradients summed by torch's DistributedDataParallel."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from tailrisk.records import FloatArray
from tailrisk.training.backends.plain import Plain
from tailrisk.trainingconfig import LoraTraining

if TYPE_CHECKING:
    from peft import PeftModel


class Ddp(Plain):
    """The default process group has been set up by whoever started the processes."""

    def __init__(self, model: PeftModel, settings: LoraTraining) -> None:
        super().__init__(model, settings)
        self.rank, self.world = dist.get_rank(), dist.get_world_size()
        self._device = next(model.parameters()).device
        self._shared = DistributedDataParallel(model)
        self.model = self._shared

    def backward(self, loss: torch.Tensor, last: bool) -> None:
        # It averages over processes where the step's gradient is a sum.
        with nullcontext() if last else self._shared.no_sync():
            (loss * self.world).backward()

    def gather(self, values: FloatArray) -> list[FloatArray]:
        return gathered(values, self._device, self.world)

    def save(self, folder: Path) -> None:
        if self.rank == 0:
            super().save(folder)
        dist.barrier()


def gathered(values: FloatArray, device: torch.device, world: int) -> list[FloatArray]:
    own = torch.as_tensor(np.asarray(values, dtype=np.float64), device=device)
    found = [torch.empty_like(own) for _ in range(world)]
    dist.all_gather(found, own)
    return [part.cpu().numpy() for part in found]
