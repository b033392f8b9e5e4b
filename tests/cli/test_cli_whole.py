"""The whole way, nothing replaced: a tiny model on disk, Ray workers, MLflow, report; and the run resumed,
where nothing is left to draw, with workers in this process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tinymodel import TINY_AUDIT, make_tiny_model
from truth.exactllama import in_process

from tailrisk.cli import run, wiring

CONFIG = (
    TINY_AUDIT
    + """run: {name: tiny, dir: runs, seed: 1}
judge: {kind: regex, pattern: "w5"}
budget: {draws: 400, pilot: 60, batch: 30, rounds: 2}
tracking: {uri: "sqlite:///mlflow.db"}
"""
)
KEY = "canary-of-a-key"
"""Such as judges may need; it is in the environment of everything."""


def tailrisk(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tailrisk", *arguments],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "JUDGE_KEY": KEY},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.mark.cluster
@pytest.mark.slow
def test_an_audit_of_a_tiny_model_and_its_resume(tmp_path, capfd, monkeypatch):
    make_tiny_model(tmp_path / "model", vocab=24)
    (tmp_path / "audit.yaml").write_text(CONFIG)
    (tmp_path / "prompts.txt").write_text("w0 w1\nw2 w4 w6\n")

    done = tailrisk(tmp_path, "audit", "audit.yaml", "--json")
    assert done.returncode in (0, 3), done.stderr
    told = json.loads(done.stdout)
    folder = tmp_path / "runs" / "tiny"
    assert {k: Path(v).resolve() for k, v in told["paths"].items()} == {
        "report": folder / "report.html",
        "run folder": folder,
        "mlflow": tmp_path / "mlflow.db",
    }
    assert (tmp_path / "mlflow.db").stat().st_size > 0
    summary = json.loads((folder / "estimates.json").read_text())
    assert summary["audit"]["draws"] <= 400
    assert all(0 < e["estimate"] < 1 and e["hits"] > 0 for e in summary["estimates"])
    mean = summary["audit"]["mean_weight"]
    assert abs(mean["value"] - 1) <= 4 * mean["se"]
    assert {"model.target", "chat_template", "rendered_prompts"} <= set(
        json.loads((folder / "manifest.json").read_text())["hashes"]
    )

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JUDGE_KEY", KEY)
    monkeypatch.setattr(wiring, "on_ray", in_process)
    assert run(["audit", "audit.yaml"]) == done.returncode
    again = capfd.readouterr()
    assert "resuming" in again.err
    assert json.loads((folder / "estimates.json").read_text())["estimates"] == summary["estimates"]

    said = "".join([done.stdout, done.stderr, again.out, again.err]).encode()
    files = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file() and "model" not in p.parts}
    assert folder / "report.html" in files and folder / "hits.jsonl" in files
    assert not any(KEY.encode() in content for content in [said, *files.values()]), "secrets stay out of all"
    # What was asked and answered is in the log, and what is made of it for reading: the draws, the hits, the report.
    rows = pq.read_table(folder / "draws.parquet", columns=["text"])["text"].to_pylist()
    texts = ["w2 w4 w6", *(text for text in rows if text.count(" ") > 1 and text not in TINY_AUDIT)]
    assert len(texts) > 50
    silent = [said, *(files[p] for p in (folder / "manifest.json", folder / "estimates.json"))]
    silent += [files[p] for p in files if p.name == "mlflow.db"]
    assert not any(text.encode() in content for text in texts for content in silent)


def test_a_model_that_is_not_there_ends_before_a_folder_is_made(tmp_path, capfd, monkeypatch):
    (tmp_path / "audit.yaml").write_text(CONFIG)
    (tmp_path / "prompts.txt").write_text("w0 w1\n")
    monkeypatch.chdir(tmp_path)
    assert run(["audit", "audit.yaml", "--set", "target.model=./absent"]) in (1, 2)
    err = capfd.readouterr().err
    assert "absent" in err and "Traceback" not in err
    assert not (tmp_path / "runs").exists()
