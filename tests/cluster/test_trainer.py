"""A fit on real Ray workers: the same adapter as in one process, also when a worker is killed on the way."""

from __future__ import annotations

import json
import re
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from mlflow import MlflowClient
from safetensors.torch import load_file
from training.lorakit import AUDIT, audit_in, context_in, data_of
from truth.exactllama import in_process

from tailrisk.cli import run, wiring
from tailrisk.cluster.session import ray_session
from tailrisk.cluster.trainer import fit_on_ray, training_cluster
from tailrisk.config import ClusterConfig
from tailrisk.errors import ModelError
from tailrisk.models.interventions.adapter import WEIGHTS
from tailrisk.training.lorafit import PROGRESS, Epoch
from tailrisk.training.lorajob import FitJob
from tailrisk.trainingconfig import LoraTraining

pytestmark = [pytest.mark.cluster, pytest.mark.nightly]
SETTINGS = {"epochs": 4, "patience": 4, "batch": 24, "rows": 5, "learning_rate": 0.003, "kl": 0.0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Beside one Ray for all the fits, which they join."""
    folder = tmp_path_factory.mktemp("trainer")
    audit_in(folder)
    with ray_session(training_cluster(ClusterConfig(), 2)):
        yield folder


def job_in(folder: Path, out: Path, **changes) -> FitJob:
    context = context_in(folder, dtype="float64")
    settings = LoraTraining.model_validate({**SETTINGS, **changes})
    joined = ClusterConfig(address="auto")
    config = context.config.model_copy(update={"training": settings, "cluster": joined}).at(folder)
    return FitJob(config, data_of(context, most=10), 3, out / "adapter", out / "kept", ("model digest", ""))


def killer(kept: Path, killed: list[list[list[float]]]) -> None:
    """Kills one worker of this process as soon as an epoch has been kept; tells what had been kept by then."""
    while not killed:
        if (kept / PROGRESS).is_file():
            for process in psutil.Process().children(recursive=True):
                if "RayTrainWorker" in " ".join(process.cmdline()):
                    killed.append(json.loads((kept / PROGRESS).read_text())["epochs"])
                    process.send_signal(signal.SIGKILL)
                    return
        time.sleep(0.02)


def train(folder: Path, out: Path, **settings: object) -> None:
    words = [word for key, value in settings.items() for word in ("--set", f"training.{key}={value}")]
    assert run(["train", "lora", str(folder / "audit.yaml"), "--out", str(out), *words]) == 0


def test_a_killed_worker_costs_an_epoch_at_most_and_mlflow_has_one_finished_run(
    folder: Path, tmp_path: Path, monkeypatch, capfd
):
    """Against the same fit in one process, to the same draws."""
    changes = {
        "target": {**AUDIT["target"], "adapter": None, "dtype": "float64"},
        "training": {**SETTINGS, "rounds": 1, "draws": 800},
        "cluster": {"address": "auto"},
    }
    audit_in(folder, **changes, tracking={"uri": None})
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    monkeypatch.setattr(wiring, "on_ray", in_process)
    train(folder, alone)
    shutil.copytree(alone / "draws-1", shared / "draws-1")
    capfd.readouterr()

    audit_in(folder, **changes, tracking={"uri": "sqlite:///mlflow.db"})
    killed: list[list[list[float]]] = []
    thread = threading.Thread(target=killer, args=(shared / "fit-1", killed), daemon=True)
    thread.start()
    train(folder, shared, backend="ddp", workers=2)
    thread.join(10.0)
    (kept,) = killed
    assert len(kept) <= SETTINGS["epochs"], "killed before the last epoch"
    said = capfd.readouterr().err
    numbers = list(range(SETTINGS["epochs"] + 1))
    assert [int(n) for n in re.findall(r"^epoch (\d+):", said, re.M)] == numbers, "no epoch is told twice"
    assert "warning: " not in said

    cards = [json.loads((out / "adapter-1" / "card.json").read_text()) for out in (alone, shared)]
    again = [list(Epoch(**e)) for e in cards[1]["epochs"][: len(kept)]]
    assert again == kept, "what was kept is not fitted again, by the seconds that it took"
    own, curve = ([(e["number"], e["divergence"]) for e in card["epochs"]] for card in cards)
    assert [n for n, _ in own] == numbers and curve == [(n, pytest.approx(v, rel=1e-6)) for n, v in own]
    states = [load_file(out / "adapter-1" / WEIGHTS) for out in (alone, shared)]
    assert all(states[1][n].allclose(v, rtol=1e-3, atol=1e-5) for n, v in states[0].items())
    assert cards[1]["divergence"]["after"] == pytest.approx(cards[0]["divergence"]["after"], rel=1e-6)

    client = MlflowClient(tracking_uri=f"sqlite:///{folder}/mlflow.db")
    (tracked,) = client.search_runs([e.experiment_id for e in client.search_experiments()])
    assert tracked.info.status == "FINISHED" and tracked.info.run_name == "audit lora"
    for name, steps in (("divergence", numbers), ("loss", numbers[1:])):
        points = client.get_metric_history(tracked.info.run_id, f"round_1/{name}")
        assert [(p.step, p.value) for p in points] == [(n, cards[1]["epochs"][n][name]) for n in steps]
    assert [a.path for a in client.list_artifacts(tracked.info.run_id)] == ["adapter-1"]
    assert client.get_model_version_by_alias("tailrisk-audit", "newest").run_id == tracked.info.run_id


def test_what_is_wrong_with_the_numbers_is_said_once(folder: Path, tmp_path: Path):
    job = job_in(folder, tmp_path, backend="ddp", workers=1, learning_rate=1e30)
    with pytest.raises(ModelError, match=r"lower training\.learning_rate"):
        fit_on_ray(job)
    assert not job.adapter.exists()
