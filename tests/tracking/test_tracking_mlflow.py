"""Against MLflow itself: a sqlite store, and servers that are dead or broken."""

from __future__ import annotations

import http.server
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from trackingkit import estimate, make_config, make_folder, outcome, state

from tailrisk.tracking import open_tracker
from tailrisk.tracking.mlflow_run import ID_FILE


def run_rounds(config, folder: Path, rounds, warnings: list[str], *, finish: bool = True) -> None:
    with open_tracker(config, folder, warn=warnings.append) as tracker:
        for r in rounds:
            tracker.round_finished(state(r), [estimate("a"), estimate("b", relative_error=None)])
        if finish:
            (folder / "estimates.json").write_text("{}")
            (folder / "report.html").write_text("<html></html>")
            tracker.finished(outcome())


def test_one_run_with_everything(base, capfd):
    config, folder, warnings = make_config(base, "sqlite:///mlflow.db"), make_folder(base), []
    run_rounds(config, folder, range(3), warnings)
    assert warnings == []
    client = MlflowClient(tracking_uri=f"sqlite:///{base}/mlflow.db")
    experiment = client.get_experiment_by_name("exp")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_id == (folder / ID_FILE).read_text().strip()
    assert run.info.status == "FINISHED" and run.info.run_name == "t1"
    assert run.data.params["proposals.0.text"] == "Be rude."
    assert not any(key.startswith("tracking") for key in run.data.params)
    assert run.data.tags["tailrisk.prompts_digest"] == "ab" * 32
    assert run.data.tags["total/draws"] == "20.0"
    assert run.inputs is not None
    assert run.inputs.dataset_inputs[0].dataset.digest == ("ab" * 32)[:36]
    points = client.get_metric_history(run.info.run_id, "tokens")
    assert [(p.step, p.value) for p in points] == [(0, 100.0), (1, 200.0), (2, 300.0)]
    names = {a.path for a in client.list_artifacts(run.info.run_id)}
    assert names == {"manifest.json", "estimates.json", "report.html"}
    assert (base / "mlruns").is_dir()
    assert list((base / "elsewhere").iterdir()) == []
    captured = capfd.readouterr()
    assert captured.out == "" and captured.err == ""


SEARCH = {
    "search_draws": 40,
    "keep": 2,
    "cells": [
        {"name": f"a-layers{i}-mix{m:g}", "proposal": "a", "values": {"layers": [i], "mix": m}}
        for i in (3, 4)
        for m in (0.5, 1.0)
    ],
    "pools": [
        {
            "pool": "group weapons: a/b",
            "prompts": ["p0", "p1"],
            "searched": ["p0"],
            "basis": "own",
            "hits": 7,
            "ess": 5.5,
            "chosen": {"target": 0.2, "a-layers3-mix1": 0.8},
            "gain": 6.25,
            "held_out": [0.0, 6.0],
            "surface": [{"component": "target", "hits": 0, "cross_entropy": 9.5, "gain": 0.0}]
            + [
                {"component": f"a-layers{i}-mix{m}", "hits": 1, "cross_entropy": None, "gain": 2.0}
                for i in (3, 4)
                for m in (0.5, 1)
            ],
        },
        {"pool": "all", "prompts": ["p2"], "searched": [], "basis": "none", "hits": 0, "ess": 0.0,
         "chosen": {"target": 0.2, "a-layers4-mix1": 0.8}, "gain": None, "held_out": [], "surface": []},
    ],
}  # fmt: skip


def test_a_search_is_one_child_run_whose_surface_is_an_artifact(base, tmp_path):
    config, folder, warnings = make_config(base, "sqlite:///mlflow.db"), make_folder(base), []
    ended = outcome()
    ended.search = SEARCH
    for _ in range(2):  # the second time as a resumed audit
        with open_tracker(config, folder, warn=warnings.append) as tracker:
            tracker.round_finished(state(0), [estimate("a")])
            tracker.finished(ended)
    assert warnings == []
    client = MlflowClient(tracking_uri=f"sqlite:///{base}/mlflow.db")
    experiment = client.get_experiment_by_name("exp")
    assert experiment is not None
    parent = (folder / ID_FILE).read_text().strip()
    runs = {r.info.run_id: r for r in client.search_runs([experiment.experiment_id])}
    (child_id,) = set(runs) - {parent}
    child = runs[child_id]
    assert child.data.tags["mlflow.parentRunId"] == parent and child.info.status == "FINISHED"
    assert child.info.run_name == "t1 search"
    assert child.data.params == {
        "search_draws": "40",
        "keep": "2",
        "cells": "4",
        "grid.a.layers": "[[3], [4]]",
        "grid.a.mix": "[0.5, 1.0]",
    }
    assert child.data.metrics == {
        "group weapons_ a/b/hits": 7.0,
        "group weapons_ a/b/ess": 5.5,
        "group weapons_ a/b/gain": 6.25,
        "gain_median": 6.25,
        "pools": 2.0,
        "prompts_without_hits": 1.0,
    }
    assert {a.path for a in client.list_artifacts(child_id)} == {"search.json", "surface.csv"}
    whole = client.download_artifacts(child_id, "search.json", str(tmp_path))
    assert json.loads(Path(whole).read_text()) == SEARCH
    lines = Path(client.download_artifacts(child_id, "surface.csv", str(tmp_path))).read_text().splitlines()
    assert lines[0] == "pool,component,hits,cross_entropy,gain" and len(lines) == 6
    assert lines[2] == "group weapons: a/b,a-layers3-mix0.5,1,,2.0"
    assert list((base / "elsewhere").iterdir()) == []


def test_resume_continues_the_run_with_one_point_a_round(base):
    folder, warnings = make_folder(base), []
    uri = "sqlite:///mlflow.db"
    with (
        pytest.raises(KeyboardInterrupt),
        open_tracker(make_config(base, uri), folder, warn=print) as tracker,
    ):
        for r in range(2):
            tracker.round_finished(state(r), [estimate()])
        raise KeyboardInterrupt
    client = MlflowClient(tracking_uri=f"sqlite:///{base}/mlflow.db")
    first = (folder / ID_FILE).read_text().strip()
    assert client.get_run(first).info.status == "KILLED"
    changed = make_config(base, uri, batch_timeout_s=5.0)
    run_rounds(changed, folder, [1, 2, 3], warnings)
    assert warnings == []
    assert (folder / ID_FILE).read_text().strip() == first
    experiment = client.get_experiment_by_name("exp")
    assert experiment is not None and len(client.search_runs([experiment.experiment_id])) == 1
    run = client.get_run(first)
    assert run.info.status == "FINISHED"
    assert run.data.params["cluster.batch_timeout_s"] == "1800.0"
    for key in run.data.metrics:
        assert [p.step for p in client.get_metric_history(first, key)] == [0, 1, 2, 3], key
    assert run.inputs is not None and len(run.inputs.dataset_inputs) == 1


@pytest.mark.parametrize("gone", [False, "deleted", "unknown"])
def test_a_training_that_came_first_becomes_a_child(base, gone):
    config, folder, warnings = make_config(base, "sqlite:///mlflow.db"), make_folder(base), []
    client = MlflowClient(tracking_uri=f"sqlite:///{base}/mlflow.db")
    training = client.create_run(client.create_experiment("exp")).info.run_id
    fit = base / "runs" / "t1.rude"
    fit.mkdir()
    (fit / ID_FILE).write_text("0" * 32 if gone == "unknown" else training)
    if gone == "deleted":
        client.delete_run(training)
    run_rounds(config, folder, range(1), warnings)
    assert warnings == []
    parent = client.get_run(training).data.tags.get("mlflow.parentRunId")
    assert parent == (None if gone else (folder / ID_FILE).read_text().strip())


def test_run_that_is_gone_is_made_anew(base):
    folder, warnings = make_folder(base), []
    (folder / ID_FILE).write_text("0" * 32 + "\n")
    run_rounds(make_config(base, "sqlite:///mlflow.db"), folder, [0], warnings)
    assert warnings == []
    client = MlflowClient(tracking_uri=f"sqlite:///{base}/mlflow.db")
    assert client.get_run((folder / ID_FILE).read_text().strip()).info.status == "FINISHED"


class _Broken(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(500)
        self.end_headers()

    do_POST = do_GET  # noqa: N815

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def broken_server() -> Iterator[int]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Broken)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize("kind", ["dead", "broken"])
def test_bad_server_costs_little_and_warns_once(base, broken_server, kind, capfd):
    port = closed_port() if kind == "dead" else broken_server
    config, folder, warnings = make_config(base, f"http://127.0.0.1:{port}"), make_folder(base), []
    spent = 0.0
    with open_tracker(config, folder, warn=warnings.append) as tracker:
        for r in range(4):
            began = time.monotonic()
            tracker.round_finished(state(r), [estimate()])
            spent += time.monotonic() - began
        leaving = time.monotonic()
    assert spent < 0.2
    assert time.monotonic() - leaving < 25, "the limit of one attempt or two, not MLflow's four minutes"
    assert len(warnings) == 1 and warnings[0].startswith("tracking: ")
    assert not (folder / ID_FILE).exists()
    assert capfd.readouterr().err == ""
