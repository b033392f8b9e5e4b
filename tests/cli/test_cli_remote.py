"""``tailrisk audit``, ``show`` and ``report`` of a run that is kept at an address, on exact laws in this process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fakerun import CASES, workers, write_config
from flakystore import FlakyStore

from tailrisk.cli import run, wiring
from tailrisk.report import render_report
from tailrisk.store.remote import Objects

ADDRESS = "flaky://bucket/runs"
AT = ["--set", f"run.dir={ADDRESS}"]
pytestmark = pytest.mark.usefixtures("blank_reports")


@pytest.fixture
def audit(tmp_path, monkeypatch) -> str:
    FlakyStore.reset()
    monkeypatch.setenv("TAILRISK_CACHE", str(tmp_path / "here"))
    monkeypatch.setattr("tailrisk.store.remote.mirror.PAUSE_S", 0.01)
    monkeypatch.setattr(wiring, "check_models", lambda config, prompts: {"model.target": "0" * 64})
    monkeypatch.setattr(wiring, "on_ray", workers(CASES[:3], 0.0))
    return str(write_config(tmp_path, CASES[:3]))


def estimates(text: bytes | str) -> list[dict[str, object]]:
    return json.loads(text)["estimates"]


def test_a_run_at_an_address_is_that_of_a_folder_and_can_be_looked_at(audit, tmp_path, monkeypatch, capfd):
    assert run(["audit", audit]) == 0
    assert run(["audit", audit, *AT]) == 0
    err = capfd.readouterr().err
    assert f"run folder: {ADDRESS}/run" in err and "warning" not in err
    there = Objects(f"{ADDRESS}/run")
    on_disk = tmp_path / "runs" / "run"
    assert estimates(there.read("estimates.json")) == estimates((on_disk / "estimates.json").read_bytes())
    assert {name for name in there.list() if not name.startswith("leases/")} == {
        path.relative_to(on_disk).as_posix() for path in on_disk.rglob("*") if path.is_file()
    } - {"lock"}

    assert b"event=finished" in there.read("run.log")
    monkeypatch.setenv("TAILRISK_CACHE", str(tmp_path / "another-machine"))
    assert run(["show", f"{ADDRESS}/run"]) == 0
    assert "rarer" in capfd.readouterr().out
    monkeypatch.setattr("tailrisk.report.render_report", render_report)
    assert run(["report", f"{ADDRESS}/run", "--redact"]) == 0
    assert capfd.readouterr().out == f"{ADDRESS}/run/report.html\n"
    assert b"harm done" not in there.read("report.html")
    assert run(["show", f"{ADDRESS}/none"]) == 1
    assert "there is no run folder" in capfd.readouterr().err


def test_a_store_that_fails_at_the_end_costs_nothing_but_another_command(audit, tmp_path, capfd):
    down = False

    def fault(what: str, path: str) -> None:
        nonlocal down
        down = down or path.endswith("estimates.json")
        if down:
            raise OSError("access was taken away")

    FlakyStore.fault = fault
    assert run(["audit", audit, *AT, "--json"]) == 1
    out, err = capfd.readouterr()
    assert json.loads(out)["exit_code"] == 1
    assert "3 prompts: 3 ok" in err and err.count("warning: ") == 1
    assert f"error: the audit is complete in {tmp_path / 'here' / 'runs'}" in err
    assert f"not all of it is at {ADDRESS}/run" in err and "access was taken away" in err
    (copy,) = (tmp_path / "here" / "runs").glob("*/run/estimates.json")
    whole = estimates(copy.read_bytes())
    FlakyStore.fault = None
    assert "run/estimates.json" not in Objects(ADDRESS).list()
    assert run(["audit", audit, *AT]) == 0
    assert f"resuming {ADDRESS}/run" in capfd.readouterr().err
    assert estimates(Objects(f"{ADDRESS}/run").read("estimates.json")) == whole


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("flaky://closed/runs", ["run.dir: flaky://closed/runs", "access denied", "credentials"]),
        ("nope://bucket/runs", ["run.dir: nope://bucket/runs", "Protocol not known"]),
        ("s3://bucket/runs", ["pip install s3fs"]),
        ("s3://bucket/runs?x=1", ["run.dir: s3://...: write an address such as s3://BUCKET/runs"]),
        ("s3://", ["write an address such as s3://BUCKET/runs"]),
        ("s3://me:secret@bucket/runs", ["no keys or passwords in an address", "AWS_PROFILE"]),
    ],
)
def test_an_address_that_cannot_be_written_to_is_refused_before_models_are_looked_at(
    audit, monkeypatch, capfd, address, told
):
    def fault(what: str, path: str) -> None:
        if "closed" in path:
            raise PermissionError("access denied")

    FlakyStore.fault = fault
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.setattr(wiring, "check_models", lambda config, prompts: pytest.fail("models were looked at"))
    path = Path(audit)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"run": {"dir": address}}))
    assert run(["audit", audit]) == 2
    err = capfd.readouterr().err
    for part in told:
        assert part in err
    assert "secret" not in err and "Traceback" not in err


def test_a_fit_beside_the_run_folder_needs_a_folder(audit, capfd):
    path = Path(audit)
    data = json.loads(path.read_text())
    data["proposals"].append({"name": "fitted", "kind": "learned"})
    path.write_text(json.dumps(data))
    assert run(["audit", audit, *AT]) == 2
    err = capfd.readouterr().err
    assert "'fitted' is fitted beside the run folder, and run.dir 'flaky://bucket/runs' is an address" in err


CHILD = """
import sys
sys.path.insert(0, {tests!r})
import tailrisk.report
from fakerun import CASES, blank_page, workers
from tailrisk.cli import main, wiring
tailrisk.report.render_report = blank_page
wiring.check_models = lambda config, prompts: {{"model.target": "0" * 64}}
wiring.on_ray = workers(CASES[:3], {delay})
sys.argv = ["tailrisk", "audit", {config!r}, "--set", "run.dir={address}", "--set", "budget.batch=20"]
main()
"""


@pytest.mark.skipif(os.name == "nt", reason="there is no SIGKILL")
def test_killed_on_one_machine_and_resumed_on_another_is_undisturbed(audit, tmp_path):
    def start(machine: str, address: str, delay: float) -> subprocess.Popen[str]:
        tests = str(Path(__file__).parents[1])
        program = CHILD.format(tests=tests, delay=delay, config=audit, address=address)
        env = {**os.environ, "OMP_NUM_THREADS": "1", "TAILRISK_CACHE": str(tmp_path / machine)}
        return subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True, env=env)

    store = tmp_path / "store" / "run"
    torn = start("first", f"file://{store.parent}", 0.1)
    deadline = time.monotonic() + 60
    while not any(b'"kind":"batch"' in part.read_bytes() for part in store.glob("open/*.jsonl")):
        assert time.monotonic() < deadline and torn.poll() is None
        time.sleep(0.01)
    (copy,) = (tmp_path / "first" / "runs").glob("*/run")
    sent = sum(part.read_bytes().count(b'"kind":"batch"') for part in store.glob("open/*.jsonl"))
    while (copy / "log/00000.jsonl").read_bytes().count(b'"kind":"batch"') <= sent:  # some are only there
        assert time.monotonic() < deadline and torn.poll() is None
        time.sleep(0.01)
    torn.send_signal(signal.SIGKILL)
    torn.communicate(timeout=30)
    assert torn.returncode == -signal.SIGKILL
    assert not (store / "estimates.json").exists()

    again = start("second", f"file://{store.parent}", 0.0)
    assert run(["audit", audit, "--set", "run.dir=calm", "--set", "budget.batch=20"]) in (0, 3)
    _, err = again.communicate(timeout=120)
    assert again.returncode in (0, 3), err
    here = tmp_path / "calm" / "run"
    assert estimates((store / "estimates.json").read_bytes()) == estimates(
        (here / "estimates.json").read_bytes()
    )
    lines = [
        sorted(line for line in (folder / "log/00000.jsonl").read_bytes().splitlines() if b'"plan"' in line)
        for folder in (store, here)
    ]
    assert lines[0] == lines[1] and len(lines[0]) > 1
    for folder in (store, here):
        log = (folder / "log/00000.jsonl").read_bytes()
        assert log.count(b'"kind":"batch"') == sum(
            line.count(b'"kind":"batch"') for line in set(log.splitlines())
        )
