"""A search as a child run of its audit's: its grids as parameters, what came of it as metrics, the surface of
scores as an artifact (JSON and CSV)."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from tailrisk.tracking.client import keep_id, log_metrics, log_params
from tailrisk.tracking.metrics import finite, plain_key

if TYPE_CHECKING:
    from mlflow import MlflowClient

ID_FILE = "mlflow_search_run_id"
COLUMNS = ("pool", "component", "hits", "cross_entropy", "gain")


def log_search(client: MlflowClient, parent_id: str, folder: Path, record: Mapping[str, Any]) -> None:
    """Writes the child run, once: its id is kept in the run folder. May be repeated after trouble."""
    run_id = _child(client, parent_id, folder)
    if run_id is None:
        return
    log_params(client, run_id, search_params(record))
    log_metrics(client, run_id, [(key, 0, value) for key, value in search_metrics(record).items()])
    with TemporaryDirectory() as scratch:
        for path in write_surface(Path(scratch), record):
            client.log_artifact(run_id, str(path))
    client.set_terminated(run_id)


def search_params(record: Mapping[str, Any]) -> dict[str, str]:
    """``search_draws``, ``keep``, the number of cells, and each proposal's values of each field of its grid."""
    params = {key: str(record[key]) for key in ("search_draws", "keep")}
    params["cells"] = str(len(record["cells"]))
    values: dict[str, list[Any]] = {}
    for cell in record["cells"]:
        for field, value in cell["values"].items():
            seen = values.setdefault(plain_key(f"grid.{cell['proposal']}.{field}"), [])
            if value not in seen:
                seen.append(value)
    return params | {key: json.dumps(seen) for key, seen in values.items()}


def search_metrics(record: Mapping[str, Any]) -> dict[str, float]:
    """Hits, their effective number and the gain in nats (of the chosen mixture over the target alone), of every
    pool and of the median one."""
    figures: dict[str, float] = {}
    pools = [pool for pool in record["pools"] if pool["hits"]]
    for pool in pools:
        figures |= {f"{pool['pool']}/{key}": pool[key] for key in ("hits", "ess", "gain")}
    gains = sorted(pool["gain"] for pool in pools)
    figures["pools"] = len(record["pools"])
    if gains:
        figures["gain_median"] = gains[len(gains) // 2]
    figures["prompts_without_hits"] = sum(
        len(pool["prompts"]) for pool in record["pools"] if not pool["hits"]
    )
    return finite(figures)


def write_surface(folder: Path, record: Mapping[str, Any]) -> list[Path]:
    """``search.json``, the whole record, and ``surface.csv``, one row a pool and component."""
    whole, surface = folder / "search.json", folder / "surface.csv"
    whole.write_text(json.dumps(record, indent=1), encoding="utf-8")
    with surface.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for pool in record["pools"]:
            for row in pool["surface"]:
                writer.writerow({"pool": pool["pool"], **row})
    return [whole, surface]


def _child(client: MlflowClient, parent_id: str, folder: Path) -> str | None:
    """The child run to write to; None where it is written already."""
    path = folder / ID_FILE
    parent = client.get_run(parent_id)
    if path.is_file() and (run_id := path.read_text(encoding="utf-8").strip()):
        run = next(
            (
                r
                for r in client.search_runs(
                    [parent.info.experiment_id], f"tags.`mlflow.parentRunId` = '{parent_id}'"
                )
                if r.info.run_id == run_id
            ),
            None,
        )
        if run is not None:
            return None if run.info.status == "FINISHED" else run_id
    name = f"{parent.info.run_name} search"
    tags = {"mlflow.parentRunId": parent_id, "tailrisk.kind": "search"}
    run = client.create_run(parent.info.experiment_id, run_name=name, tags=tags)
    keep_id(path, run.info.run_id)
    return run.info.run_id
