"""A fit on real Ray workers: the same adapter as in one process, also when a worker is killed on the way."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from safetensors.torch import load_file
from training.lorakit import context_in, data_of
from training.stepcount import Counted
from truth.exactllama import save_exact_llama

from tailrisk.cluster.session import ray_session
from tailrisk.cluster.trainer import fit_on_ray, training_cluster
from tailrisk.config import ClusterConfig
from tailrisk.errors import ModelError
from tailrisk.models.interventions.adapter import WEIGHTS
from tailrisk.training.lorafit import Epoch
from tailrisk.training.lorajob import FitJob, run_fit
from tailrisk.trainingconfig import LoraTraining

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
SETTINGS = {"epochs": 3, "patience": 3, "batch": 24, "rows": 5, "learning_rate": 0.003, "kl": 0.0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trainer")
    save_exact_llama(folder)
    return folder


@pytest.fixture(scope="module")
def two_workers() -> Iterator[None]:
    """A Ray for all fits of this file."""
    with ray_session(training_cluster(ClusterConfig(), 2)):
        yield


def job_in(folder: Path, out: Path, **changes) -> FitJob:
    context = context_in(folder, dtype="float64")
    settings = LoraTraining.model_validate({**SETTINGS, **changes})
    config = context.config.model_copy(update={"training": settings}).at(folder)
    return FitJob(config, data_of(context, most=10), 3, out / "adapter", out / "kept", ("model digest", ""))


def killer(kept: Path, killed: list[int]) -> None:
    """Kills one worker as soon as an epoch has been kept."""
    while not killed:
        if (kept / "progress.json").is_file():
            for process in psutil.process_iter(["cmdline", "ppid"]):
                if "RayTrainWorker" in " ".join(process.info["cmdline"] or ()):
                    killed.append(process.pid)
                    os.kill(process.pid, signal.SIGKILL)
                    return
        time.sleep(0.02)


def test_a_killed_worker_costs_an_epoch_at_most(two_workers: None, folder: Path, tmp_path: Path):
    alone = run_fit(job_in(folder, tmp_path / "alone"), Counted())
    job = job_in(folder, tmp_path / "shared", backend="ddp", workers=2)
    told: list[Epoch] = []
    killed: list[int] = []
    thread = threading.Thread(target=killer, args=(job.kept, killed), daemon=True)
    thread.start()
    fit_on_ray(job, told.append)
    thread.join()
    assert killed
    assert [e.number for e in told] == [0, 1, 2, 3], "no epoch is told twice"
    for epoch, own in zip(told, alone.epochs, strict=True):
        assert epoch.divergence == pytest.approx(own.divergence, rel=1e-6)
    states = [load_file(tmp_path / place / "adapter" / WEIGHTS) for place in ("alone", "shared")]
    assert all(states[1][n].allclose(v, rtol=1e-3, atol=1e-5) for n, v in states[0].items())
    card = json.loads((job.adapter / "card.json").read_text())
    assert card["divergence"]["after"] == pytest.approx(alone.after, rel=1e-6)
    assert card["model"] == "model" and card["identity"]["model"] == "model digest"


def test_what_is_wrong_with_the_numbers_is_said_once(two_workers: None, folder: Path, tmp_path: Path):
    job = job_in(folder, tmp_path, backend="ddp", workers=1, learning_rate=1e30)
    with pytest.raises(ModelError, match=r"lower training\.learning_rate"):
        fit_on_ray(job)
    assert not job.adapter.exists()
