"""One process of a fit by several: ``python lora_worker.py FOLDER OUT SETTINGS RANK WORLD``; rank 0 writes OUT."""

from __future__ import annotations

import json
import os
import sys
from datetime import timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from training.lorakit import context_in, data_of, fitted

from tailrisk.trainingconfig import LoraTraining


def main(folder: str, out: str, settings: str, rank: str, world: str) -> None:
    torch.set_num_threads(1)
    os.environ.update(RANK=rank, WORLD_SIZE=world, LOCAL_RANK=rank, LOCAL_WORLD_SIZE=world)
    store = dist.FileStore(f"{out}.store", int(world))
    dist.init_process_group(
        "gloo", store=store, rank=int(rank), world_size=int(world), timeout=timedelta(seconds=120)
    )
    chosen = LoraTraining.model_validate_json(settings)
    # DeepSpeed has no float64.
    context = context_in(
        Path(folder), dtype=chosen.dtype or ("float32" if chosen.backend == "deepspeed" else "float64")
    )
    kept = Path(f"{out}.kept")
    result = fitted(context, chosen, data_of(context, most=10), kept)
    if rank == "0":
        save_file(result.state, f"{out}.safetensors")
        told = [e[:3] for e in result.epochs]
        Path(f"{out}.json").write_text(json.dumps({"epochs": told, "best": result.best}))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
