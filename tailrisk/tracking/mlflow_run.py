"""One MLflow run for one audit, through ``MlflowClient`` and nothing global; called from one thread.

The run's id is kept in the run folder (``mlflow_run_id``), so that a resumed audit continues the same run.
Parameters are written once, a round's metrics once: what is there already is looked up, after any trouble
again, because a request that seemed to fail may have arrived.
"""

from __future__ import annotations

import json
import logging
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tailrisk import __version__
from tailrisk.config import Config
from tailrisk.tracking.metrics import MAX_TAG, cut, params
from tailrisk.tracking.searchrun import log_search
from tailrisk.tracking.threaded import Ending
from tailrisk.tracking.uri import database

if TYPE_CHECKING:
    from mlflow import MlflowClient

ID_FILE = "mlflow_run_id"
ARTIFACTS = ("manifest.json", "estimates.json", "report.html")
STEP_KEY = "draws"
"""A metric that every round has: its history says which rounds are there."""

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


class MlflowRun:
    """Implements ``threaded.Backend``. ``uri`` is a resolved tracking address."""

    def __init__(self, config: Config, folder: Path, uri: str) -> None:
        self._config = config
        self._folder = folder
        self._uri = uri
        self._client: MlflowClient | None = None
        self._run_id = ""
        self._logged: set[int] | None = None

    def begin(self) -> None:
        if self._run_id:
            return
        client = self._connect()
        run = self._stored_run(client) or self._new_run(client)
        missing = {k: v for k, v in self._params().items() if k not in run.data.params}
        run_id = run.info.run_id
        from mlflow.entities import Param, RunTag

        entries = [Param(key, value) for key, value in missing.items()]
        for start in range(0, len(entries), _BATCH):
            client.log_batch(run_id, params=entries[start : start + _BATCH])
        client.log_batch(
            run_id, tags=[RunTag(key, cut(value, MAX_TAG)) for key, value in self._tags().items()]
        )
        if not run.inputs or not run.inputs.dataset_inputs:
            self._log_prompts(client, run_id)
        self._run_id = run_id

    def log_rounds(self, rounds: dict[int, dict[str, float]]) -> None:
        from mlflow.entities import Metric

        client = self._connect()
        if self._logged is None:
            history = client.get_metric_history(self._run_id, STEP_KEY)
            self._logged = {point.step for point in history}
        logged, self._logged = self._logged, None
        now = int(time.time() * 1000)
        for step in sorted(set(rounds) - logged):
            entries = [Metric(key, value, now, step) for key, value in rounds[step].items()]
            client.log_batch(self._run_id, metrics=entries)
            logged.add(step)
        # Only now: after an exception above, what arrived is looked up again.
        self._logged = logged

    def log_search(self, record: dict[str, Any]) -> None:
        log_search(self._connect(), self._run_id, self._folder, record)

    def end(self, ending: Ending, totals: dict[str, float]) -> None:
        client = self._connect()
        if totals:
            from mlflow.entities import RunTag

            tags = [RunTag(key, repr(value)) for key, value in totals.items()]
            for start in range(0, len(tags), _BATCH):
                client.log_batch(self._run_id, tags=tags[start : start + _BATCH])
        for name in ARTIFACTS:
            path = self._folder / name
            if path.is_file():
                client.log_artifact(self._run_id, str(path))
        client.set_terminated(self._run_id, status=ending)

    def _connect(self) -> MlflowClient:
        if self._client is None:
            for name, value in _ENVIRONMENT.items():
                os.environ.setdefault(name, value)
            for name in _NOISY:
                logging.getLogger(name).setLevel(logging.CRITICAL)
            from mlflow import MlflowClient

            if (file := database(self._uri)) is not None:
                file.parent.mkdir(parents=True, exist_ok=True)
            self._client = MlflowClient(tracking_uri=self._uri)
        return self._client

    def _stored_run(self, client: MlflowClient) -> Any:
        """The run of an earlier start of this audit, set running again; None where there is none."""
        from mlflow.exceptions import MlflowException

        path = self._folder / ID_FILE
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

    def _new_run(self, client: MlflowClient) -> Any:
        name = self._config.tracking.experiment
        experiment = client.get_experiment_by_name(name)
        if experiment is not None:
            experiment_id = experiment.experiment_id
        else:
            experiment_id = client.create_experiment(name, artifact_location=self._artifact_location())
        run = client.create_run(experiment_id, run_name=self._config.run.name)
        temporary = self._folder / f"{ID_FILE}.tmp"
        temporary.write_text(run.info.run_id + "\n", encoding="utf-8")
        os.replace(temporary, self._folder / ID_FILE)
        return run

    def _artifact_location(self) -> str | None:
        """Beside the sqlite file; MLflow's own default is a folder in whatever directory we happen to be."""
        file = database(self._uri)
        return None if file is None else (file.parent / "mlruns").as_uri()

    def _manifest(self) -> dict[str, Any]:
        try:
            return json.loads((self._folder / "manifest.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}

    def _params(self) -> dict[str, str]:
        resolved = self._config.model_dump(mode="json")
        return params({key: value for key, value in resolved.items() if key != "tracking"})

    def _tags(self) -> dict[str, str]:
        prompts = self._manifest().get("identity", {}).get("prompts", {})
        return {
            "tailrisk.version": __version__,
            "tailrisk.run_folder": self._folder.name,
            "tailrisk.prompts_digest": str(prompts.get("digest", "")),
            "tailrisk.prompts": str(prompts.get("count", "")),
        }

    def _log_prompts(self, client: MlflowClient, run_id: str) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        digest = self._tags()["tailrisk.prompts_digest"]
        if not digest:
            return
        path = self._config.prompts.path
        source = json.dumps({"uri": Path(path).name})
        dataset = Dataset(Path(path).stem or "prompts", digest[:36], "local", source)
        client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "audit")])])
