"""A fit shared by several workers: processes found, placed, watched and started again by Ray Train.

Every worker runs the same ``run_fit``; it goes on from the last whole epoch that is kept in the job's own folder,
which all workers must see, so that a worker that dies costs one epoch at most. A fault of the settings or of the
numbers is not tried again: a worker that meets one leaves a note and ends, and what is started again finds it.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tailrisk.config import ClusterConfig, PoolConfig
from tailrisk.errors import ClusterError, ConfigError, ModelError, TailriskError

if TYPE_CHECKING:
    from tailrisk.training.lorafit import Epoch
    from tailrisk.training.lorajob import FitJob

RESTARTS = 3
"""Of all workers together, for deaths that are nobody's notice of a node that goes away."""
_POLL_S = 0.5
_FAULT = "fault.json"
_KINDS: dict[str, type[TailriskError]] = {"ConfigError": ConfigError, "ModelError": ModelError}


def fit_on_ray(job: FitJob, after_epoch: Callable[[Epoch], None] = lambda epoch: None) -> None:
    """Runs the job on ``training.workers`` workers; the adapter is in its folder afterwards.

    Needs a session (``ray_session``). ``after_epoch`` is told in this process. Errors: ConfigError and ModelError
    as ``run_fit``; ClusterError where workers keep dying.
    """
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.train.v2.api.exceptions import TrainingFailedError

    gpus = job.config.cluster.models.num_gpus
    job.kept.mkdir(parents=True, exist_ok=True)
    (job.kept / _FAULT).unlink(missing_ok=True)
    trainer = TorchTrainer(
        _work,
        train_loop_config={"job": job},
        scaling_config=ScalingConfig(
            num_workers=job.config.training.workers,
            use_gpu=gpus > 0,
            resources_per_worker={"CPU": 1, **({"GPU": gpus} if gpus else {})},
        ),
        torch_config=TorchConfig(backend="nccl" if gpus else "gloo"),
        run_config=RunConfig(
            name="train",
            storage_path=str((job.kept / "ray").resolve()),
            failure_config=FailureConfig(max_failures=RESTARTS),
        ),
    )
    failed: TrainingFailedError | None = None
    try:
        with _quiet(), _told(job, after_epoch):
            trainer.fit()
    except TrainingFailedError as error:
        failed = error
    if fault := _fault(job.kept):
        raise fault
    if failed is not None:
        lines = [line for line in str(failed).splitlines() if line.strip()]
        raise ClusterError(
            f"training: the workers died more than {RESTARTS} times; the last: {lines[-1][:300]}. What was fitted "
            f"is kept in {job.kept}: mend the cluster and run the same command again"
        ) from failed


def training_cluster(config: ClusterConfig, workers: int) -> ClusterConfig:
    """The cluster for a fit: a local one is given a core a worker, even where the machine has fewer."""
    pool = PoolConfig(min=workers, max=workers, num_cpus=1, num_gpus=config.models.num_gpus)
    return config.model_copy(update={"models": pool})


def _work(config: dict[str, Any]) -> None:
    import ray.train.torch
    import torch.distributed as dist
    from ray.train import get_context

    from tailrisk.training.lorajob import run_fit

    job: FitJob = config["job"]
    if _fault(job.kept):
        return
    device = str(ray.train.torch.get_device())
    target = job.config.target.model_copy(update={"device": device})
    try:
        run_fit(job._replace(config=job.config.model_copy(update={"target": target})), _Silent())
    except (ConfigError, ModelError) as error:
        place = job.kept / f"{_FAULT}.{get_context().get_world_rank()}"
        place.write_text(json.dumps([type(error).__name__, str(error)]), encoding="utf-8")
        os.replace(place, job.kept / _FAULT)
        # Workers that have not met it would wait for this one; so they fail, and end when they are started again.
        dist.destroy_process_group()


class _Silent:
    def stage(self, name: str, steps: int) -> None:
        pass

    def step(self, n: int = 1) -> None:
        pass


def _fault(kept: Path) -> TailriskError | None:
    try:
        kind, text = json.loads((kept / _FAULT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return _KINDS[kind](text)


@contextmanager
def _told(job: FitJob, after_epoch: Callable[[Epoch], None]) -> Iterator[None]:
    """Reads what the workers have kept, and tells of each epoch that is new."""
    from tailrisk.training.lorafit import kept_epochs

    over = threading.Event()
    identity = job.identity
    known = len(kept_epochs(job.kept, identity))

    def look() -> None:
        nonlocal known
        epochs = kept_epochs(job.kept, identity)
        for epoch in epochs[known:]:
            after_epoch(epoch)
        known = max(known, len(epochs))

    def watch() -> None:
        while not over.wait(_POLL_S):
            look()

    thread = threading.Thread(target=watch, name="tailrisk-epochs", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        look()


@contextmanager
def _quiet() -> Iterator[None]:
    """Ray Train's own lines stay out of the terminal; what matters becomes an error of ours."""
    import logging

    logger = logging.getLogger("ray.train")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
