"""What all that is written to MLflow has in common; through ``MlflowClient`` and nothing global."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tailrisk.tracking.metrics import MAX_PARAM, MAX_TAG, cut
from tailrisk.tracking.uri import database

if TYPE_CHECKING:
    from mlflow import MlflowClient

_BATCH = 100
_ENVIRONMENT = {
    # By default a dead server holds its caller for four minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_CONFIGURE_LOGGING": "false",
    "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING": "false",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}
_NOISY = ("mlflow", "alembic", "urllib3.connectionpool", "sqlalchemy")


def connect(uri: str) -> MlflowClient:
    """A client for a resolved address, its noise off and its patience short."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    from mlflow import MlflowClient

    if (file := database(uri)) is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
    return MlflowClient(tracking_uri=uri)


def experiment_id(client: MlflowClient, name: str, uri: str) -> str:
    """The experiment of this name, made where there is none."""
    experiment = client.get_experiment_by_name(name)
    if experiment is not None:
        return experiment.experiment_id
    # Beside the sqlite file; MLflow's own default is a folder in whatever directory we happen to be.
    file = database(uri)
    location = None if file is None else (file.parent / "mlruns").as_uri()
    return client.create_experiment(name, artifact_location=location)


def stored_run(client: MlflowClient, path: Path) -> Any:
    """The run whose id a file keeps, set running again; None where there is none any more."""
    from mlflow.exceptions import MlflowException

    if not path.is_file() or not (run_id := path.read_text(encoding="utf-8").strip()):
        return None
    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise
    if run.info.lifecycle_stage != "active":
        return None
    client.update_run(run_id, status="RUNNING")
    return run


def keep_id(path: Path, run_id: str) -> None:
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text(run_id + "\n", encoding="utf-8")
    os.replace(temporary, path)


def log_params(client: MlflowClient, run_id: str, params: Mapping[str, str]) -> None:
    from mlflow.entities import Param

    _in_batches(client, run_id, params=[Param(key, cut(value, MAX_PARAM)) for key, value in params.items()])


def log_tags(client: MlflowClient, run_id: str, tags: Mapping[str, str]) -> None:
    from mlflow.entities import RunTag

    _in_batches(client, run_id, tags=[RunTag(key, cut(value, MAX_TAG)) for key, value in tags.items()])


def log_metrics(client: MlflowClient, run_id: str, points: Iterable[tuple[str, int, float]]) -> None:
    """Points are (name, step, value), all of now."""
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    _in_batches(client, run_id, metrics=[Metric(key, value, now, step) for key, step, value in points])


def logged_steps(client: MlflowClient, run_id: str, name: str) -> set[int]:
    """The steps at which a metric is there already."""
    return {point.step for point in client.get_metric_history(run_id, name)}


def _in_batches(client: MlflowClient, run_id: str, **entries: Sequence[Any]) -> None:
    for kind, all_of_it in entries.items():
        for start in range(0, len(all_of_it), _BATCH):
            part: dict[str, Any] = {kind: all_of_it[start : start + _BATCH]}
            client.log_batch(run_id, **part)


def log_prompts(client: MlflowClient, run_id: str, path: str, digest: str, use: str) -> None:
    """The prompt file as a dataset input, by its name and digest; its texts go nowhere."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    source = json.dumps({"uri": Path(path).name})
    dataset = Dataset(Path(path).stem or "prompts", digest[:36], "local", source)
    client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", use)])])
