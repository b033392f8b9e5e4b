"""Fits by processes that find one another: ``python lora_worker.py FOLDER DATA OUT JOBS``.

DATA is a pickle of what is fitted to; JOBS a JSON list of ``world`` and ``fits``, the latter ``name``, ``settings``,
``kept`` and ``until``, the epoch after which a fit is cut (null: it goes to its end). The processes of a job are forked
when libraries have been imported, which takes longer than the fits, and make its fits one after another. Rank 0
writes OUT/name.json and OUT/name.safetensors of those that end.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import deepspeed.runtime.zero.muon.muon_optimizer  # noqa: F401  # with torch's compiler, on first use
import torch
import torch.distributed as dist
from safetensors.torch import save_file
from training.lorakit import context_in, fitted

from tailrisk.training.loradata import FitData
from tailrisk.training.lorafit import Epoch
from tailrisk.trainingconfig import LoraTraining


class CutError(Exception):
    """The fit is stopped from outside."""


def work(folder: Path, data: FitData, out: Path, job: dict[str, Any], number: int, rank: int) -> None:
    world = job["world"]
    os.environ.update(
        RANK=str(rank), WORLD_SIZE=str(world), LOCAL_RANK=str(rank), LOCAL_WORLD_SIZE=str(world)
    )
    store = dist.FileStore(str(out / f"store-{number}"), world)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world, timeout=timedelta(seconds=120))
    for fit in job["fits"]:
        made: list[int] = []

        def after(epoch: Epoch, made: list[int] = made, until: int | None = fit["until"]) -> None:
            made.append(epoch.number)
            if epoch.number == until:
                raise CutError

        settings = LoraTraining.model_validate(fit["settings"])
        # DeepSpeed has no float64.
        dtype = settings.dtype or ("float32" if settings.backend == "deepspeed" else "float64")
        try:
            result = fitted(
                context_in(folder, dtype=dtype), settings, data, out / fit["kept"], after_epoch=after
            )
        except CutError:
            continue
        if rank == 0:
            save_file(result.state, out / f"{fit['name']}.safetensors")
            told = {"epochs": [e[:3] for e in result.epochs], "best": result.best, "made": made}
            (out / f"{fit['name']}.json").write_text(json.dumps(told))
    dist.barrier()
    dist.destroy_process_group()


def main(folder: str, data: str, out: str, jobs: str) -> None:
    torch.set_num_threads(1)
    examples = pickle.loads(Path(data).read_bytes())
    context_in(Path(folder))  # what transformers imports for a model, once for all that are forked
    fork = multiprocessing.get_context("fork")
    for number, job in enumerate(json.loads(jobs)):
        arguments = (Path(folder), examples, Path(out), job, number)
        workers = [fork.Process(target=work, args=(*arguments, rank)) for rank in range(job["world"])]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        if any(worker.exitcode for worker in workers):
            sys.exit(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
