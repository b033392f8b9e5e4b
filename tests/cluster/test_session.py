"""Starting and leaving a Ray of our own, each in a process of its own with a home of its own; what cannot be joined."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tailrisk.cluster import ray_session, session
from tailrisk.cluster.session import probe_address, sweep_temp
from tailrisk.config import ClusterConfig, PoolConfig
from tailrisk.errors import ClusterError

pytestmark = pytest.mark.cluster

DRIVER = Path(__file__).parent / "sessiondriver.py"


class Driver:
    def __init__(self, home: Path, *arguments: str, **environment: str) -> None:
        home.mkdir(exist_ok=True)
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
        self.process = subprocess.Popen(
            [sys.executable, str(DRIVER), *arguments],
            env={**inherited, "HOME": str(home), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def line(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        text = self.process.stdout.readline()
        assert text, self.process.communicate(timeout=60)
        return json.loads(text)


def gone(session: str, within_s: float = 20.0) -> bool:
    """No process has the session's folder on its command line any more."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if not any(session in command for command in _commands()):
            return True
        time.sleep(0.2)
    return False


def _commands() -> Iterator[str]:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            yield path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue


def test_local_starts_and_stops_its_own(tmp_path):
    driver = Driver(tmp_path / "home", "local", RAY_ADDRESS="127.0.0.1:1")
    facts = driver.line()
    assert facts["cpus"] >= 6, "logical CPUs for all the workers the pools may have"
    out, err = driver.process.communicate(timeout=60)
    assert driver.process.returncode == 0, err
    assert json.loads(out) == {"changed": []}
    assert err == ""
    assert not Path(facts["session"]).exists()
    assert gone(facts["session"])
    assert [p for p in (tmp_path / "home").rglob("*") if p.is_file()] == [], "no token written into the home"


SHARDED = PoolConfig(max=3, num_cpus=1.5, tensor_parallel=2, pipeline_parallel=2)


@pytest.mark.parametrize(
    ("cores", "pools", "asked"),
    [
        (1, {"models": SHARDED}, 18),
        (1, {"models": SHARDED, "checkpoints": PoolConfig(max=2, num_cpus=3)}, 24),
        (1, {"models": PoolConfig(max=2, num_cpus=0.25), "judges": PoolConfig(max=4, num_cpus=0.5)}, 3),
        (32, {"models": SHARDED}, 32),
        (None, {"models": PoolConfig(max=2)}, 2),
    ],
)
def test_local_has_room_for_every_process_of_every_worker(monkeypatch, cores, pools, asked):
    """Ranks of a sharded worker that find no room would be waited for without end: the cluster is ours alone."""
    given: list[Any] = []
    monkeypatch.setattr(session, "_init", lambda **options: given.append(options["num_cpus"]))
    monkeypatch.setattr(session.os, "cpu_count", lambda: cores)
    with ray_session(ClusterConfig(**pools)):
        pass
    assert given == [asked]


def assert_token_is_asked_for(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with pytest.raises(ClusterError, match=r"asks for a token that this process does not have"):
        probe_address(address, timeout_s=60.0)


def test_local_needs_its_token_and_stops_on_ctrl_c(tmp_path, monkeypatch):
    driver = Driver(tmp_path / "home", "local", "stay")
    facts = driver.line()
    assert_token_is_asked_for(facts["gcs"], monkeypatch)
    os.killpg(driver.process.pid, signal.SIGINT)
    assert driver.line() == {"interrupted": True}, "Ctrl-C reaches the driver, and Ray's processes with it"
    assert driver.process.wait(timeout=30) == 0
    assert gone(facts["session"]) and not Path(facts["session"]).exists()


def test_driver_killed_outright_leaves_no_processes(tmp_path):
    driver = Driver(tmp_path / "home", "local", "stay")
    facts = driver.line()
    driver.process.kill()
    driver.process.wait()
    assert gone(facts["session"])
    sweep_temp()
    assert not Path(facts["session"]).exists()


def test_addresses_that_do_not_answer(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "")
    with pytest.raises(
        ClusterError, match=r"'127\.0\.0\.1:1': nothing answers .*set cluster.address to 'local'"
    ):
        probe_address("127.0.0.1:1")
    with pytest.raises(ClusterError, match=r"cannot join.*Invalid address format"):
        probe_address("bogus")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(ClusterError, match=r"no Ray cluster answered within 3 s"):
            probe_address(address, timeout_s=3.0)


def test_ray_client_scheme_is_refused():
    code = (
        "from tailrisk.cluster import ray_session\nfrom tailrisk.config import ClusterConfig\n"
        "with ray_session(ClusterConfig(address='ray://h:1')): pass"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "only 'local', 'auto' and host:port" in done.stderr
