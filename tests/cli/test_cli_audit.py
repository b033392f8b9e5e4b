"""``tailrisk audit`` from its configuration file to its exit status, on exact laws in this process."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fakerun import CASES, Case, WordJudge, workers, write_config

from tailrisk.cli import run, wiring

GOOD = CASES[:3]
pytestmark = pytest.mark.usefixtures("blank_reports")


@pytest.fixture
def wired(monkeypatch):
    """Checks as in life but for the model's own, which a stand-in cannot pass; workers in this process."""

    def wire(cases=GOOD, delay=0.0):
        monkeypatch.setattr(wiring, "check_models", lambda config, prompts: {"model.target": "0" * 64})
        monkeypatch.setattr(wiring, "on_ray", workers(cases, delay))

    return wire


@pytest.mark.page
def test_a_run_ends_with_a_table_the_paths_and_all_files(tmp_path, wired, capfd):
    wired()
    config = write_config(tmp_path, GOOD)
    assert run(["audit", str(config)]) == 0
    out, err = capfd.readouterr()
    assert out == ""
    folder = tmp_path / "runs" / "run"
    for name in ("manifest.json", "estimates.json", "hits.jsonl", "draws.parquet", "report.html", "run.log"):
        assert (folder / name).stat().st_size > 0, name
    assert str(folder / "report.html") in err
    for case in GOOD:
        assert [line for line in err.splitlines() if line.strip().startswith(case.id) and "ok" in line]
    assert "pilot starts: 180 draws for 3 prompts" in err
    assert "3 prompts: 3 ok" in err


def test_no_prompt_or_answer_reaches_the_terminal_or_the_log(tmp_path, wired, capfd):
    wired()
    config = write_config(tmp_path, GOOD)
    run(["audit", str(config)])
    shown = "".join(capfd.readouterr()) + (tmp_path / "runs/run/run.log").read_text()
    assert "prompt of" not in shown
    assert "harm done" not in shown and "good answer" not in shown
    assert "event=round_finished" in shown


def test_json_prints_the_totals_and_nothing_else(tmp_path, wired, capfd):
    wired()
    assert run(["audit", str(write_config(tmp_path, GOOD)), "--json", "--quiet"]) == 0
    out, err = capfd.readouterr()
    told = json.loads(out)
    assert told["audit"]["prompts"] == 3
    assert told["exit_code"] == 0
    assert Path(told["paths"]["report"]).exists()
    assert err == ""


def test_a_prompt_that_is_not_settled_gives_3(tmp_path, wired, capfd):
    cases = (*GOOD, Case("never", 1e-9, tilt=0.0))
    wired(cases)
    config = str(write_config(tmp_path, cases))
    assert run(["audit", config]) == 3
    assert "bound-only" in capfd.readouterr().err
    assert run(["audit", config, "--short-ok"]) == 0
    assert run(["audit", config, "--short-ok", "--fail-above", "1e-6"]) == 4


@pytest.mark.parametrize(("limit", "status"), [("0.2", 0), ("0.001", 4)])
def test_a_risk_limit_is_compared_with_the_upper_ends(tmp_path, wired, capfd, limit, status):
    wired()
    assert run(["audit", str(write_config(tmp_path, GOOD)), "--fail-above", limit]) == status
    told = capfd.readouterr().err
    assert ("1 prompt is shown to be above 0.001: frequent" in told) == (status == 4)


def test_the_limit_counts_the_certified_end_where_the_estimate_is_not_to_be_trusted(tmp_path, wired):
    cases = (Case("never", 1e-9, tilt=0.0),)
    wired(cases)
    config = str(write_config(tmp_path, cases, budget={"draws": 300, "pilot": 60}))
    assert run(["audit", config, "--fail-above", "1e-6"]) == 4


def test_the_same_command_again_draws_nothing_and_says_the_same(tmp_path, wired, capfd):
    wired()
    config = write_config(tmp_path, GOOD)
    run(["audit", str(config)])
    before = json.loads((tmp_path / "runs/run/estimates.json").read_text())["estimates"]
    size = sum(f.stat().st_size for f in (tmp_path / "runs/run/log").iterdir())
    capfd.readouterr()
    assert run(["audit", str(config)]) == 0
    assert "resuming" in capfd.readouterr().err
    assert json.loads((tmp_path / "runs/run/estimates.json").read_text())["estimates"] == before
    assert sum(f.stat().st_size for f in (tmp_path / "runs/run/log").iterdir()) == size


def test_other_settings_refuse_the_run_folder(tmp_path, wired, capfd):
    wired()
    config = str(write_config(tmp_path, GOOD))
    run(["audit", config])
    capfd.readouterr()
    assert run(["audit", config, "--set", "run.seed=4"]) == 1
    assert "run.seed: 3 -> 4" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("budget.drows=5", "draws"),
        ("budget.draws=20", "pilot"),
        ("tracking.uri=file:///tmp/x", "sqlite"),
        ("prompts.path=absent.jsonl", "absent.jsonl"),
        ("judge.pattern='('", "judge.pattern"),
    ],
)
def test_bad_settings_end_with_2_before_a_folder_is_made(tmp_path, wired, capfd, change, message):
    wired()
    assert run(["audit", str(write_config(tmp_path, GOOD)), "--set", change]) == 2
    err = capfd.readouterr().err
    assert message in err and "Traceback" not in err
    assert err.count("error:") == 1
    assert not (tmp_path / "runs").exists()


def test_a_missing_file_is_one_message(tmp_path, capfd):
    assert run(["audit", str(tmp_path / "absent.yaml")]) == 2
    err = capfd.readouterr().err
    assert "absent.yaml" in err and "Traceback" not in err


def test_a_failing_judge_stops_the_run_and_keeps_the_draws(tmp_path, wired, monkeypatch, capfd):
    class Broken:
        def judge(self, prompt, responses):
            raise ConnectionError("judge is away")

    wired()
    config = str(write_config(tmp_path, GOOD))
    healthy = WordJudge.judge
    monkeypatch.setattr(WordJudge, "judge", Broken.judge)
    assert run(["audit", config]) == 1
    assert "judge is away" in capfd.readouterr().err
    log = tmp_path / "runs/run/run.log"
    assert "Traceback" in log.read_text()
    monkeypatch.setattr(WordJudge, "judge", healthy)
    assert run(["audit", config]) == 0


def test_a_defect_names_its_place_and_not_its_values(tmp_path, wired, monkeypatch, capfd):
    wired()
    monkeypatch.setattr(wiring, "_paths", lambda *_: (_ for _ in ()).throw(KeyError("harm done 7")))
    assert run(["audit", str(write_config(tmp_path, GOOD))]) == 1
    err = capfd.readouterr().err
    assert "unexpected KeyError" in err
    assert "harm done" not in err and "Traceback" not in err


CHILD = """
import sys
sys.path.insert(0, {tests!r})
import tailrisk.report
from fakerun import CASES, blank_page, workers
from tailrisk.cli import main, wiring
tailrisk.report.render_report = blank_page
wiring.check_models = lambda config, prompts: {{"model.target": "0" * 64}}
wiring.on_ray = workers(CASES[:3], {delay})
sys.argv = ["tailrisk", "audit", {config!r}]
main()
"""


def test_ctrl_c_tells_how_to_resume_and_resuming_ends_as_if_undisturbed(tmp_path):
    tests = str(Path(__file__).parents[1])

    def start(folder: Path, delay: float) -> subprocess.Popen[str]:
        config = str(write_config(folder, GOOD))
        program = CHILD.format(tests=tests, delay=delay, config=config)
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True, env=env)

    slow = start(tmp_path / "a", 0.2)
    log = tmp_path / "a/runs/run/log/00000.jsonl"
    deadline = time.monotonic() + 60
    while not (log.exists() and log.read_text().count('"kind":"batch"') >= 3):
        assert time.monotonic() < deadline and slow.poll() is None
        time.sleep(0.02)
    slow.send_signal(signal.SIGINT)
    _, err = slow.communicate(timeout=60)
    assert slow.returncode == 130
    assert f"tailrisk audit {tmp_path / 'a' / 'audit.yaml'}" in err
    assert "Traceback" not in err
    assert not (tmp_path / "a/runs/run/estimates.json").exists()

    again, whole = start(tmp_path / "a", 0.0), start(tmp_path / "b", 0.0)
    for process in (again, whole):
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
    first, second = (
        json.loads((tmp_path / name / "runs/run/estimates.json").read_text())["estimates"] for name in "ab"
    )
    assert first == second


def test_what_a_dead_tracking_server_missed_is_sent_by_the_next_command(tmp_path, wired, capfd):
    from mlflow import MlflowClient

    wired()
    config = str(write_config(tmp_path, GOOD))
    with socket.socket() as taken:  # nobody answers there
        taken.bind(("127.0.0.1", 0))
        dead = f"tracking.uri=http://127.0.0.1:{taken.getsockname()[1]}"
        assert run(["audit", config, "--set", dead]) == 0
    err = capfd.readouterr().err
    assert err.count("warning: tracking: ") == 1 and "run again sends what is missing" in " ".join(
        err.split()
    )
    for _ in range(2):
        assert run(["audit", config, "--set", "tracking.uri=sqlite:///mlflow.db"]) == 0
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
    (found,) = client.search_runs([client.get_experiment_by_name("tailrisk").experiment_id])
    log = (tmp_path / "runs/run/run.log").read_text()
    draws = [int(n) for n in re.findall(r"event=round_finished.*? draws=(\d+)", log)]
    points = [(p.step, int(p.value)) for p in client.get_metric_history(found.info.run_id, "draws")]
    assert points == list(enumerate(draws[: len(points)])) and len(points) > 1, (points, draws)
    assert found.info.status == "FINISHED"
    assert "report.html" in {a.path for a in client.list_artifacts(found.info.run_id)}
