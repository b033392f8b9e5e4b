"""``tailrisk submit`` without a cluster: what it refuses, the line that it prints, and how jobs' ends are told."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakerun import CASES, write_config

from tailrisk.cli import run
from tailrisk.cli import submit as verb
from tailrisk.cluster.submission import End
from tailrisk.errors import ClusterError

URL = "http://127.0.0.1:8265"
SHARED = ["--set", "run.dir=/shared/runs"]


class Server:
    """A job server that writes down what it is asked, and whose jobs end as they are told to."""

    address = URL

    def __init__(self, end: End | BaseException) -> None:
        self.end = end
        self.sent: list[tuple[Any, ...]] = []

    def submit(self, entrypoint: str, working_dir: Path, submission_id: str | None) -> str:
        self.sent.append((entrypoint, working_dir, submission_id))
        return submission_id or "raysubmit_1"

    def follow(self, submission_id: str, write: Callable[[str], object]) -> End:
        write("pilot starts\n")
        if isinstance(self.end, BaseException):
            raise self.end
        return self.end

    def stop(self, submission_id: str) -> tuple[bool, str]:
        return submission_id == "running", "STOPPED" if submission_id == "running" else "SUCCEEDED"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TAILRISK_CACHE", str(tmp_path / "cache"))
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server(monkeypatch):
    def make(end: End | BaseException = End("SUCCEEDED", 0, "")) -> Server:  # noqa: B008
        made = Server(end)
        monkeypatch.setattr(verb, "_server", lambda address: made)
        return made

    return make


@pytest.fixture
def audit(tmp_path) -> str:
    return str(write_config(tmp_path / "audit", CASES[:3]))


def submit(*words: str) -> int:
    return run(["submit", *words, "--address", URL])


def test_the_audit_runs_in_the_folder_that_was_sent(audit, server, capfd):
    made = server()
    assert submit(audit, *SHARED, "--submission-id", "night-1", "--fail-above", "0.001") == 0
    ((entrypoint, folder, name),) = made.sent
    assert name == "night-1"
    words = shlex.split(entrypoint)
    assert words[:2] == ["tailrisk", "audit"] and words[3:] == ["--fail-above", "0.001"]
    assert (folder / words[2]).is_file()
    out, err = capfd.readouterr()
    assert out == "night-1\npilot starts\n"
    assert "results: /shared/runs/run" in err


def test_the_line_to_type_by_hand_does_the_same(audit, server, capfd, monkeypatch):
    made = server()
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    submit(audit, *SHARED, "--submission-id", "night-1", "--no-wait")
    ((entrypoint, folder, _),) = made.sent
    line = next(line for line in capfd.readouterr().err.splitlines() if " job submit " in line)
    words = shlex.split(line)
    assert words[:6] == ["env", "-u", "RAY_ADDRESS", "ray", "job", "submit"]
    options, after = words[6 : words.index("--")], words[words.index("--") + 1 :]
    assert options == [
        *("--address", URL, "--working-dir", str(folder), "--submission-id", "night-1", "--no-wait"),
    ]
    assert after == shlex.split(entrypoint)


def test_results_may_go_to_object_storage(audit, server, capfd):
    server()
    assert submit(audit, "--set", "run.dir=s3://bucket/runs") == 0
    err = capfd.readouterr().err
    assert "results: s3://bucket/runs/run\n" in err and "tailrisk show s3://bucket/runs/run" in err


def test_a_server_that_is_open_to_all_is_told_of_once_and_not_refused(audit, server, capfd, monkeypatch):
    from tailrisk.cluster import exposure

    made = server()
    monkeypatch.setattr(exposure, "of_job_server", lambda address: f"{address}: this Ray asks for no token")
    assert submit(audit, *SHARED) == 0 and len(made.sent) == 1
    assert capfd.readouterr().err.count(f"warning: {URL}: this Ray asks for no token") == 1


def test_no_wait_prints_the_id_alone_and_how_to_go_on(audit, server, capfd):
    server(AssertionError("not followed"))
    assert submit(audit, *SHARED, "--no-wait") == 0
    out, err = capfd.readouterr()
    assert out == "raysubmit_1\n"
    assert f"tailrisk submit --follow raysubmit_1 --address {URL}" in err
    assert f"tailrisk submit --stop raysubmit_1 --address {URL}" in err


@pytest.mark.parametrize(
    ("end", "status", "told"),
    [
        (End("SUCCEEDED", 0, ""), 0, "is done"),
        (End("FAILED", 3, "failed with exit code 3"), 3, "is complete; some prompts are not settled"),
        (End("FAILED", 4, ""), 4, "reaches above the limit"),
        (End("FAILED", 2, ""), 2, "was refused on the cluster"),
        (End("FAILED", 1, ""), 1, "ended with an error, shown above"),
        (End("FAILED", 127, ""), 1, "there is no command tailrisk on the cluster"),
        (End("FAILED", -9, "the node died\nlong log"), 1, "failed with exit code -9 (the node died)"),
        (End("FAILED", None, "runtime env"), 1, "failed (runtime env); what is drawn is kept"),
        (End("STOPPED", None, ""), 1, "was stopped; what is drawn is kept: submit the audit again"),
    ],
)
def test_ends_are_told_apart(audit, server, capfd, end, status, told):
    server(end)
    assert submit(audit, *SHARED) == status
    err = capfd.readouterr().err
    assert told in err
    assert ("results:" in err) == (status in (0, 3, 4))


def test_ctrl_c_leaves_the_job_running_and_says_how_to_come_back(audit, server, capfd):
    server(KeyboardInterrupt())
    assert submit(audit, *SHARED) == 130
    err = capfd.readouterr().err
    assert "goes on without being followed" in err
    assert f"tailrisk submit --follow raysubmit_1 --address {URL}" in err


def test_a_job_can_be_followed_later_and_stopped(server, capfd):
    server(End("FAILED", 3, ""))
    assert submit("--follow", "night-1") == 3
    assert "pilot starts" in capfd.readouterr().out
    assert submit("--stop", "running") == 0
    assert "is stopped; submitting its audit again resumes" in capfd.readouterr().err
    assert submit("--stop", "gone") == 0
    assert "has ended by itself (SUCCEEDED)" in capfd.readouterr().err


def test_trouble_with_the_cluster_is_an_error_of_its_own(audit, monkeypatch, capfd):
    def refuse(address: str) -> None:
        raise ClusterError(f"{address}: the cluster refuses the token of this process")

    monkeypatch.setattr(verb, "_server", refuse)
    assert submit(audit, *SHARED) == 1
    assert "refuses the token" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ([], ["run.dir: 'runs'", "--set run.dir=/shared/runs"]),
        (["run.dir=~/runs"], ["run.dir: '~/runs'"]),
        (["run.dir=s3://me:hush@bucket/runs"], ["no keys or passwords in an address"]),
        (
            ["tracking.uri=sqlite:///mlflow.db"],
            ["tracking.uri: 'sqlite:///mlflow.db'", "run.dir", "sqlite:////"],
        ),
        (["tracking={}"], ["tracking.uri: 'sqlite:///mlflow.db' (the default)"]),
        (
            ["tracking.uri=http://me:secret@host:5000"],
            ["http://me:***@host:5000", "MLFLOW_TRACKING_PASSWORD"],
        ),
        (["run.dir=/shared/runs", "tracking.uri=file:///x"], ["MLflow no longer writes to plain folders"]),
        (
            ["run.dir=/shared/runs", "target.adapter=~/adapter"],
            ["target.adapter: '~/adapter'", "'~' is another"],
        ),
        (["run.dir=/shared/runs", "prompts.path=none.jsonl"], ["prompts.path", "no such file"]),
        (["run.dir=/shared/runs", "target.adapter=none"], ["target.adapter: 'none': no such folder"]),
        (["run.dir=/shared/runs", "target.model=./none"], ["target.model: model './none': no such folder"]),
        (["run.dir=/shared/runs", "budget.draws=20"], ["pilot needs"]),
        (["run.dir=/shared/runs", "budget.drows=20"], ["unknown key", "draws"]),
        (
            ["run.dir=/shared/runs", "judge={kind: python, function: 'none.py:f'}"],
            ["judge.function", "no file"],
        ),
        (
            ["run.dir=/shared/runs", "judge={kind: linear, weights: none.safetensors}"],
            ["judge.weights", "no file"],
        ),
    ],
)
def test_what_cannot_run_there_is_refused_before_anything_is_sent(audit, monkeypatch, capfd, changes, told):
    monkeypatch.setattr(verb, "_server", lambda address: pytest.fail("the cluster was asked"))
    assert submit(audit, *(word for change in changes for word in ("--set", change))) == 2
    err = capfd.readouterr().err
    for part in told:
        assert part in err
    assert "secret" not in err


@pytest.mark.parametrize(
    ("judge", "expected"),
    [
        ("{kind: python, function: '/shared/judge.py:f'}", "judge.function /shared/judge.py"),
        ("{kind: linear, weights: /shared/judge.safetensors}", "judge.weights /shared/judge.safetensors"),
    ],
)
def test_what_is_only_there_is_left_to_the_cluster(audit, server, capfd, judge, expected):
    server()
    there = ["prompts.path=/shared/p.jsonl", "target.model=/shared/model", f"judge={judge}"]
    assert submit(audit, *SHARED, *(word for change in there for word in ("--set", change))) == 0
    err = capfd.readouterr().err
    for name in (
        "prompts.path /shared/p.jsonl",
        "target.model /shared/model",
        expected,
    ):
        assert f"not sent, expected on the cluster: {name}" in err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["submit", "a.yaml", "--address", "127.0.0.1:8265"], "did you mean http://127.0.0.1:8265?"),
        (["submit", "a.yaml", "--address", "ray://host:10001"], "the address of Ray's dashboard"),
        (["submit", "--address", URL], "give one of CONFIG"),
        (["submit", "a.yaml", "--stop", "x", "--address", URL], "give one of CONFIG"),
        (["submit", "--stop", "../x", "--address", URL], "submission id '../x'"),
        (["submit", "--follow", "x", "--no-wait", "--address", URL], "go with a CONFIG"),
    ],
)
def test_commands_that_make_no_sense(words, told, capfd):
    assert run(words) == 2
    assert told in capfd.readouterr().err


def test_an_address_is_needed(audit, capfd):
    assert run(["submit", audit, *SHARED]) == 2
    assert "--address" in capfd.readouterr().err


def test_the_address_may_come_from_rays_own_variable(server, monkeypatch, capfd):
    server()
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", URL)
    assert run(["submit", "--stop", "running"]) == 0
    assert "is stopped" in capfd.readouterr().err
