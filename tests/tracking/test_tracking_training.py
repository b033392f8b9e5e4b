"""A training in MLflow's own store: curves, adapters, registry; and what was not told is told the next time."""

from __future__ import annotations

import json
import socket
import threading
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient
from trackingkit import make_config, make_folder

from tailrisk.tracking import open_uploads
from tailrisk.tracking.mlflow_run import ID_FILE
from tailrisk.tracking.trainingrun import ALIAS, FitRound, TrainingRecord, registered_name
from tailrisk.tracking.uploads import Uploads


def epochs(count: int) -> tuple[dict, ...]:
    return tuple(
        {"number": i, "loss": None if i == 0 else 9.0 - i, "divergence": 5.0 / (1 + i), "seconds": 1.0}
        for i in range(count)
    )


def record(folder: Path, *rounds: int) -> TrainingRecord:
    """As many rounds, each with so many epochs; all but the last are fitted."""
    found = []
    for number, count in enumerate(rounds, 1):
        adapter = folder / f"adapter-{number}" if number < len(rounds) else None
        if adapter is not None:
            adapter.mkdir(parents=True, exist_ok=True)
            (adapter / "adapter_model.safetensors").write_bytes(b"weights %d" % number)
            (adapter / "card.json").write_text("{}")
        figures = {"draws": 100, "hits": 10 * number, "hit_rate": 0.1 * number}
        found.append(FitRound(number, figures, epochs(count), adapter))
    return TrainingRecord(tuple(found), "cd" * 32, 2)


def whole(folder: Path) -> TrainingRecord:
    found = record(folder, 3, 4, 0)
    return found._replace(rounds=found.rounds[:2])


def test_everything_is_there(base):
    config, folder, warnings = make_config(base, "sqlite:///mlflow.db"), base / "learned", []
    audit = make_folder(base)
    (audit / ID_FILE).write_text("the-audit\n")
    folder.mkdir()
    with open_uploads(config, folder, warn=warnings.append) as uploads:
        for r in (record(folder, 0), record(folder, 2), record(folder, 3, 0), whole(folder)):
            uploads.put(r)
    assert warnings == []
    client = MlflowClient(tracking_uri=f"sqlite:///{base}/mlflow.db")
    experiment = client.get_experiment_by_name("exp")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_name == "t1 lora" and run.info.status == "FINISHED"
    assert run.data.tags["mlflow.parentRunId"] == "the-audit" and run.data.tags["tailrisk.kind"] == "training"
    assert run.data.params["training.shape.rank"] == "8" and run.data.params["target.model"] == "tiny"
    assert [(p.step, p.value) for p in client.get_metric_history(run.info.run_id, "hits")] == [
        (1, 10),
        (2, 20),
    ]
    for number, count in ((1, 3), (2, 4)):
        curve = client.get_metric_history(run.info.run_id, f"round_{number}/divergence")
        assert [(p.step, p.value) for p in curve] == [(i, 5.0 / (1 + i)) for i in range(count)]
        losses = client.get_metric_history(run.info.run_id, f"round_{number}/loss")
        assert [p.step for p in losses] == list(range(1, count))
    (dataset,) = run.inputs.dataset_inputs
    assert dataset.dataset.digest == ("cd" * 32)[:36] and json.loads(dataset.dataset.source) == {
        "uri": "prompts.jsonl"
    }
    assert {a.path for a in client.list_artifacts(run.info.run_id)} == {"adapter-1", "adapter-2"}
    version = client.get_model_version_by_alias(registered_name(config), ALIAS)
    assert registered_name(config) == "exp-t1" and version.run_id == run.info.run_id
    assert version.source.endswith("/adapter-2")
    assert list((base / "elsewhere").iterdir()) == []


def test_what_failed_is_told_by_the_next_command_once(base):
    folder, warnings = base / "learned", []
    folder.mkdir()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        dead = make_config(base, f"http://127.0.0.1:{taken.getsockname()[1]}")
        began = time.monotonic()
        with open_uploads(dead, folder, warn=warnings.append) as uploads:
            uploads.put(record(folder, 2))
            uploads.put(whole(folder))
        assert time.monotonic() - began < 45.0
    assert len(warnings) == 1 and "run again sends what is missing" in warnings[0]
    config = make_config(base, "sqlite:///mlflow.db")
    for _ in range(2):
        with open_uploads(config, folder, warn=warnings.append) as uploads:
            uploads.put(whole(folder))
    assert len(warnings) == 1
    client = MlflowClient(tracking_uri=f"sqlite:///{base}/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("exp").experiment_id])
    assert [p.step for p in client.get_metric_history(run.info.run_id, "round_2/divergence")] == [0, 1, 2, 3]
    assert len(client.search_model_versions("name='exp-t1'")) == 1, "registered once"


@pytest.mark.parametrize("half", ["a file is missing", "a file is cut off"])
def test_an_adapter_that_was_half_sent_is_sent_whole_before_it_is_registered(base, monkeypatch, half):
    """By a server that fails in the middle of a folder; the next command finishes what it began."""
    config, folder, warnings = make_config(base, "sqlite:///mlflow.db"), base / "learned", []
    folder.mkdir()
    weights = (whole(folder).rounds[0].adapter or folder) / "adapter_model.safetensors"

    def half_sent(client: MlflowClient, run_id: str, source: str, place: str) -> None:
        part = base / "part" / weights.name
        part.parent.mkdir(exist_ok=True)
        part.write_bytes(weights.read_bytes()[: None if half == "a file is missing" else 3])
        client.log_artifact(run_id, str(part), place)
        if half == "a file is cut off":
            client.log_artifact(run_id, str(weights.with_name("card.json")), place)
        raise ConnectionError("the server went away")

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_artifacts", half_sent)
        with open_uploads(config, folder, warn=warnings.append) as uploads:
            uploads.put(whole(folder))
    client = MlflowClient(tracking_uri=f"sqlite:///{base}/mlflow.db")
    assert len(warnings) == 1 and client.search_registered_models() == []
    with open_uploads(config, folder, warn=warnings.append) as uploads:
        uploads.put(whole(folder))
    assert len(warnings) == 1
    run_id = client.get_model_version_by_alias(registered_name(config), ALIAS).run_id
    assert run_id is not None
    for adapter in (folder / "adapter-1", folder / "adapter-2"):
        stored = Path(client.download_artifacts(run_id, adapter.name, str(base / "part")))
        assert {f.name: f.read_bytes() for f in stored.iterdir()} == {
            f.name: f.read_bytes() for f in adapter.iterdir()
        }


def test_a_failed_training_is_not_registered(base):
    config, folder = make_config(base, "sqlite:///mlflow.db"), base / "learned"
    folder.mkdir()
    with pytest.raises(RuntimeError), open_uploads(config, folder, warn=print) as uploads:
        uploads.put(record(folder, 3, 1))
        raise RuntimeError
    client = MlflowClient(tracking_uri=f"sqlite:///{base}/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("exp").experiment_id])
    assert run.info.status == "FAILED" and client.search_registered_models() == []


def test_a_slow_server_holds_nothing_up(tmp_path):
    """Records that come while one is being sent are not sent one by one: the last of them is."""
    sent, gate = [], threading.Event()

    def send(told: TrainingRecord, ending) -> None:
        sent.append((len(told.rounds[0].epochs), ending))
        gate.wait(10.0)

    with Uploads(send, warn=print) as uploads:
        began = time.monotonic()
        for count in range(1, 6):
            uploads.put(record(tmp_path, count))
            time.sleep(0.02)
        assert time.monotonic() - began < 5.0
        gate.set()
    assert sent[0][0] == 1 and sent[-1] == (5, "FINISHED") and len(sent) <= 3


def test_without_tracking_there_is_nothing(base):
    assert open_uploads(make_config(base, None), base) is None
