"""A training as an MLflow run: curves, adapters, and the last adapter in the model registry.

``upload`` tells what is known so far and is not there yet, so it may be called as often as one likes, by this command
or by the next one: what a server could not take today it gets then. The run is a child of the audit's whose
configuration it is, where that was tracked before; an audit that fits for itself adopts it afterwards.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

from tailrisk import __version__
from tailrisk.config import Config
from tailrisk.tracking.client import (
    connect,
    experiment_id,
    keep_id,
    log_metrics,
    log_params,
    log_prompts,
    log_tags,
    logged_steps,
    stored_run,
)
from tailrisk.tracking.metrics import finite, params
from tailrisk.tracking.mlflow_run import ID_FILE

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from tailrisk.tracking.trouble import Ending

ALIAS = "newest"
"""Of the version that was registered last."""
_REGISTERED = "tailrisk.registered"


class FitRound(NamedTuple):
    """One round. ``figures`` of its draws and its fit by name; of each epoch a dictionary with its ``number``;
    ``adapter`` is its folder, None until it is written."""

    number: int
    figures: dict[str, Any]
    epochs: tuple[dict[str, Any], ...]
    adapter: Path | None


class TrainingRecord(NamedTuple):
    """What is known of a training so far; ``prompts_digest`` as in the manifests of its draws."""

    rounds: tuple[FitRound, ...]
    prompts_digest: str
    prompts: int


def upload(config: Config, folder: Path, uri: str, record: TrainingRecord, ending: Ending | None) -> None:
    """``ending``: the training is over, in this way (None: it goes on). Raises whatever MLflow raises."""
    client = connect(uri)
    run = stored_run(client, folder / ID_FILE) or _new_run(client, config, folder, uri)
    run_id = run.info.run_id
    named = params(
        {"training": config.training.model_dump(mode="json"), "target": config.target.model_dump(mode="json")}
    )
    log_params(client, run_id, {key: value for key, value in named.items() if key not in run.data.params})
    if record.prompts_digest and not (run.inputs and run.inputs.dataset_inputs):
        log_prompts(client, run_id, config.prompts.path, record.prompts_digest, "training")
    for key, values in _points(record).items():
        there = logged_steps(client, run_id, key)
        log_metrics(client, run_id, [(key, step, v) for step, v in values.items() if step not in there])
    for done in record.rounds:
        if done.adapter is not None and not _is_there(client, run_id, done.adapter):
            client.log_artifacts(run_id, str(done.adapter), done.adapter.name)
    if ending == "FINISHED" and _REGISTERED not in run.data.tags:
        _register(client, config, run, record)
    if ending is not None:
        client.set_terminated(run_id, status=ending)


def registered_name(config: Config) -> str:
    """The name in the model registry."""
    return config.tracking.register_as or f"{config.tracking.experiment}-{config.run.name}"


def _new_run(client: MlflowClient, config: Config, folder: Path, uri: str) -> Any:
    experiment = experiment_id(client, config.tracking.experiment, uri)
    tags = {"tailrisk.kind": "training", "tailrisk.version": __version__, "tailrisk.run_folder": folder.name}
    audit = config.run_folder / ID_FILE
    if audit.is_file() and (parent := audit.read_text(encoding="utf-8").strip()):
        tags["mlflow.parentRunId"] = parent
    run = client.create_run(experiment, run_name=f"{config.run.name} lora", tags=tags)
    keep_id(folder / ID_FILE, run.info.run_id)
    return run


def _is_there(client: MlflowClient, run_id: str, folder: Path) -> bool:
    """Whether every file of a folder is there in its whole length: sending it may have ended in the middle."""
    there = {(PurePosixPath(f.path).name, f.file_size) for f in client.list_artifacts(run_id, folder.name)}
    return all((f.name, f.stat().st_size) in there for f in folder.iterdir())


def _points(record: TrainingRecord) -> dict[str, dict[int, float]]:
    """Name -> step -> value: figures by the round's number, curves of each round by the epoch's."""
    points: dict[str, dict[int, float]] = {}
    for done in record.rounds:
        for key, value in finite(done.figures).items():
            points.setdefault(key, {})[done.number] = value
        for epoch in done.epochs:
            figures = {f"round_{done.number}/{k}": v for k, v in epoch.items() if k != "number"}
            for key, value in finite(figures).items():
                points.setdefault(key, {})[epoch["number"]] = value
    return points


def _register(client: MlflowClient, config: Config, run: Any, record: TrainingRecord) -> None:
    """The last adapter as a new version; a tag of the run says that this was done."""
    from mlflow.exceptions import MlflowException

    adapters = [done.adapter for done in record.rounds if done.adapter is not None]
    if not adapters:
        return
    name = registered_name(config)
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    source = f"{run.info.artifact_uri}/{adapters[-1].name}"
    version = client.create_model_version(name, source, run.info.run_id)
    client.set_registered_model_alias(name, ALIAS, version.version)
    log_tags(client, run.info.run_id, {_REGISTERED: f"{name}/{version.version}"})
