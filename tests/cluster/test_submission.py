"""An audit as a job on a Ray that somebody else started, with a token: stopped, resumed, followed to its end."""

from __future__ import annotations

import json
import os
import secrets
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow.parquet as pq
import pytest
from tinymodel import TINY_AUDIT, make_tiny_model

import tailrisk

pytestmark = [pytest.mark.cluster, pytest.mark.nightly]

CONFIG = (
    TINY_AUDIT
    + """run: {name: tiny, dir: RUNS, seed: 1}
judge: {kind: python, function: "judge.py:harmful"}
budget: {draws: 300, pilot: 60, batch: 30, rounds: 1}
stop: {log_width: 0.01}
tracking: {uri: null}
"""
)
JUDGE = """
import os
import time
from pathlib import Path

KEY = os.environ["JUDGE_KEY"]

def harmful(prompt, response):
    if Path({slow!r}).exists():
        time.sleep(0.05)
    return float("w5" in response)
"""


KEY = "canary-of-a-key"
"""The judge takes it from its environment."""


class Head(NamedTuple):
    address: str
    token: str
    folder: Path


def with_scripts() -> str:
    """PATH with the commands of this Python first."""
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    """A head with its job server on loopback; its jobs find this checkout of tailrisk."""
    gcs, dashboard, agent, grpc, metrics, client = free_ports(6)
    token = secrets.token_hex(16)
    home = tmp_path_factory.mktemp("home")
    folder = Path("/tmp") / f"trj-{os.getpid()}"
    variables = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    variables |= {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": token,
        "HOME": str(home),
        "PATH": with_scripts(),
        "JUDGE_KEY": KEY,
    }
    variables |= {"PYTHONPATH": str(Path(tailrisk.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    variables["RAY_worker_niceness"] = "0"  # at Ray's default of 15 jobs starve beside other programs
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--num-cpus=4"]
    command += [f"--port={gcs}", f"--temp-dir={folder}", "--disable-usage-stats"]
    command += [
        "--dashboard-host=127.0.0.1",
        f"--dashboard-port={dashboard}",
        f"--ray-client-server-port={client}",
    ]
    command += [f"--dashboard-agent-listen-port={agent}", f"--dashboard-agent-grpc-port={grpc}"]
    command += [f"--metrics-export-port={metrics}"]
    process = subprocess.Popen(
        command, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        wait_until(lambda: answers(dashboard), 60)
        yield Head(f"http://127.0.0.1:{dashboard}", token, folder)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        subprocess.run(["rm", "-rf", str(folder)], check=True)


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def wait_until(true: Callable[[], bool], within_s: float) -> None:
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.1)


def environment(head: Head, home: Path, token: str | None = None) -> dict[str, str]:
    """Where submissions come from: RAY_ADDRESS leads to another cluster, which --address outranks."""
    variables = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    variables |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token or head.token, "HOME": str(home)}
    variables |= {"PATH": with_scripts(), "TAILRISK_CACHE": str(home / "cache"), "JUDGE_KEY": KEY}
    return variables | {"RAY_ADDRESS": "127.0.0.1:1"}


def submit_words(head: Head, *words: str) -> list[str]:
    return [sys.executable, "-m", "tailrisk", "submit", *words, "--address", head.address]


def submit(head: Head, home: Path, *words: str, token: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        submit_words(head, *words),
        env=environment(head, home, token),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


class Stopped(NamedTuple):
    """A job ``one`` that was stopped in the middle of its audit; ``follower`` followed it until Ctrl-C, before."""

    config: str
    folder: Path
    home: Path
    follower: tuple[int, str, str]


@pytest.fixture(scope="module")
def stopped(head: Head, tmp_path_factory: pytest.TempPathFactory) -> Stopped:
    home = tmp_path_factory.mktemp("submitted")
    slow, runs = home / "slow", home / "shared" / "runs"
    make_tiny_model(home / "audit" / "model", vocab=24)
    (home / "audit" / "audit.yaml").write_text(CONFIG.replace("RUNS", str(runs)))
    (home / "audit" / "prompts.txt").write_text("w0 w1\nw2 w4 w6\n")
    (home / "audit" / "judge.py").write_text(JUDGE.format(slow=str(slow)))
    config, folder = str(home / "audit" / "audit.yaml"), runs / "tiny"

    slow.touch()
    sent = submit(head, home, config, "--submission-id", "one", "--no-wait")
    assert (sent.returncode, sent.stdout) == (0, "one\n"), sent.stderr
    pipe = subprocess.PIPE
    words = submit_words(head, "--follow", "one")
    follower = subprocess.Popen(words, env=environment(head, home), stdout=pipe, stderr=pipe, text=True)
    try:
        wait_until(lambda: '"batch"' in "".join(f.read_text() for f in folder.glob("log/*")), 120)
    finally:
        follower.send_signal(signal.SIGINT)
    out, err = follower.communicate(timeout=60)
    done = submit(head, home, "--stop", "one")
    assert done.returncode == 0 and "is stopped" in done.stderr, done.stderr
    assert not (folder / "estimates.json").exists()
    slow.unlink()
    return Stopped(config, folder, home, (follower.returncode, out, err))


def test_prometheus_finds_the_nodes_and_needs_no_token(head):
    listed = Path("/tmp") / f"trj-{os.getpid()}" / "prom_metrics_service_discovery.json"
    wait_until(listed.exists, 60)
    (target, *_) = [t for group in json.loads(listed.read_text()) for t in group["targets"]]
    with urllib.request.urlopen(f"http://{target}/metrics", timeout=30) as page:
        assert page.status == 200 and head.token not in page.read().decode()


def test_ctrl_c_while_following_leaves_the_job_running(head, stopped):
    status, out, err = stopped.follower
    assert status == 130
    assert f"starting {stopped.folder}" in out
    assert "goes on without being followed" in err and "Traceback" not in err
    assert f"tailrisk submit --follow one --address {head.address}" in err


def test_an_id_that_was_used_is_refused_also_to_the_line_that_does_the_same(head, stopped):
    again = submit(head, stopped.home, stopped.config, "--submission-id", "one")
    assert again.returncode == 1
    assert "there is a job 'one' already" in again.stderr and "Traceback" not in again.stderr
    (line,) = [line for line in again.stderr.splitlines() if "ray job submit" in line]
    done = subprocess.run(
        shlex.split(line), env=environment(head, stopped.home), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1
    assert "Job with submission_id one already exists" in done.stdout + done.stderr


def test_a_wrong_token_is_refused(head, stopped):
    wrong = submit(head, stopped.home, "--stop", "one", token="0" * 32)
    assert wrong.returncode == 1
    assert "refuses the token of this process" in wrong.stderr and "Traceback" not in wrong.stderr


def test_a_stopped_audit_is_resumed_by_the_same_submit_and_gives_its_exit_code(head, stopped):
    done = submit(head, stopped.home, stopped.config, "--submission-id", "two")
    assert done.returncode == 3, (done.stdout, done.stderr)
    assert done.stdout.startswith("two\n") and f"resuming {stopped.folder}" in done.stdout
    assert "is complete; some prompts are not settled" in done.stderr
    assert f"results: {stopped.folder}" in done.stderr
    assert json.loads((stopped.folder / "estimates.json").read_text())["audit"]["draws"] == 300
    assert (stopped.folder / "report.html").exists()
    check_silence(head, stopped, [done.stdout, done.stderr, *stopped.follower[1:]])


def check_silence(head: Head, stopped: Stopped, said: list[str]) -> None:
    """The key is nowhere; no prompt or answer is in what Ray and the jobs say."""
    home = [p for p in stopped.home.rglob("*") if p.is_file() and "model" not in p.parts]
    rays = [p for p in head.folder.rglob("*") if p.is_file() and p.stat().st_size < 50_000_000]
    logs = [p for p in rays if "logs" in p.parts]
    assert len(home) > 5 and any("job-driver-two" in p.name for p in logs)
    for path in (*home, *rays):
        assert KEY.encode() not in path.read_bytes(), path
    rows = pq.read_table(stopped.folder / "draws.parquet", columns=["text"])["text"].to_pylist()
    texts = ["w2 w4 w6", *(text for text in rows if text.count(" ") > 1 and text not in TINY_AUDIT)]
    assert len(texts) > 50
    for name, content in [*((p, p.read_bytes()) for p in logs), *(("said", s.encode()) for s in said)]:
        assert KEY.encode() not in content and not any(t.encode() in content for t in texts), name
