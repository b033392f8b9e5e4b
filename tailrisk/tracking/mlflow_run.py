"""One MLflow run for one audit, through ``MlflowClient`` and nothing global; called from one thread.

The run's id is kept in the run folder (``mlflow_run_id``), so that a resumed audit continues the same run.
Parameters are written once, a round's metrics once: what is there already is looked up, after any trouble
again, because a request that seemed to fail may have arrived.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from tailrisk.tracking.metrics import params
from tailrisk.tracking.searchrun import log_search
from tailrisk.tracking.trouble import Ending

if TYPE_CHECKING:
    from mlflow import MlflowClient

ID_FILE = "mlflow_run_id"
ARTIFACTS = ("manifest.json", "estimates.json", "report.html")
STEP_KEY = "draws"
"""A metric that every round has: its history says which rounds are there."""


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
        run = stored_run(client, self._folder / ID_FILE) or self._new_run(client)
        missing = {k: v for k, v in self._params().items() if k not in run.data.params}
        run_id = run.info.run_id
        log_params(client, run_id, missing)
        log_tags(client, run_id, self._tags())
        if not run.inputs or not run.inputs.dataset_inputs:
            self._log_prompts(client, run_id)
        self._adopt(client, run_id)
        self._run_id = run_id

    def log_rounds(self, rounds: dict[int, dict[str, float]]) -> None:
        client = self._connect()
        if self._logged is None:
            self._logged = logged_steps(client, self._run_id, STEP_KEY)
        logged, self._logged = self._logged, None
        for step in sorted(set(rounds) - logged):
            log_metrics(client, self._run_id, [(key, step, value) for key, value in rounds[step].items()])
            logged.add(step)
        # Only now: after an exception above, what arrived is looked up again.
        self._logged = logged

    def log_search(self, record: dict[str, Any]) -> None:
        log_search(self._connect(), self._run_id, self._folder, record)

    def end(self, ending: Ending, totals: dict[str, float]) -> None:
        client = self._connect()
        if totals:
            log_tags(client, self._run_id, {key: repr(value) for key, value in totals.items()})
        for name in ARTIFACTS:
            path = self._folder / name
            if path.is_file():
                client.log_artifact(self._run_id, str(path))
        client.set_terminated(self._run_id, status=ending)

    def _connect(self) -> MlflowClient:
        if self._client is None:
            self._client = connect(self._uri)
        return self._client

    def _new_run(self, client: MlflowClient) -> Any:
        experiment = experiment_id(client, self._config.tracking.experiment, self._uri)
        run = client.create_run(experiment, run_name=self._config.run.name)
        keep_id(self._folder / ID_FILE, run.info.run_id)
        return run

    def _adopt(self, client: MlflowClient, run_id: str) -> None:
        """Trainings of this audit's own, which came before it, become its children."""
        from mlflow.exceptions import MlflowException

        for proposal in self._config.proposals:
            path = self._config.fit_folder(proposal.name) / ID_FILE
            if path.is_file() and (child := path.read_text(encoding="utf-8").strip()):
                try:
                    client.set_tag(child, "mlflow.parentRunId", run_id)
                except MlflowException as error:
                    # A training that somebody has deleted needs no parent.
                    if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                        raise

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
        digest = self._tags()["tailrisk.prompts_digest"]
        if digest:
            log_prompts(client, run_id, self._config.prompts.path, digest, "audit")
