"""clusters/local-multinode.py: nodes come, are joined and left running, and all their processes go again."""

from __future__ import annotations

import json
import os
import re
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tailrisk.cluster.session import probe_address
from tailrisk.errors import ClusterError

pytestmark = pytest.mark.cluster

CLUSTERS = Path(__file__).parents[2] / "clusters"


def run(script: str, *words: str, timeout: float = 100.0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(CLUSTERS / script), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout)


@pytest.fixture
def port() -> Iterator[int]:
    """A free one outside the range of Ray's workers; what was started there is stopped whatever happens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    port = port if port > 19999 else port + 20000
    yield port
    run("local-multinode.py", "stop", "--port", str(port))


def environment(folder: Path) -> dict[str, str]:
    """What the file for the shell sets."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return inherited | dict(re.findall(r"^export (\w+)=(.*)$", (folder / "env").read_text(), re.MULTILINE))


def processes(folder: Path) -> set[int]:
    """Those that have the folder in their command line or environment, zombies not."""
    found = set()
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if any(str(folder).encode() in (path / name).read_bytes() for name in ("cmdline", "environ")):
                found.add(int(path.name))
        except OSError:
            continue
    return found


def listening(pids: set[int]) -> set[str]:
    """The addresses, as the kernel writes them, on which these processes take connections."""
    inodes = set()
    for pid in pids:
        for descriptor in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                inodes |= set(re.findall(r"socket:\[(\d+)\]", os.readlink(descriptor)))
            except OSError:
                continue
    rows = [
        row.split()
        for table in ("tcp", "tcp6")
        for row in Path(f"/proc/net/{table}").read_text().splitlines()[1:]
    ]
    return {row[1].rpartition(":")[0] for row in rows if row[3] == "0A" and row[9] in inodes}


LOOPBACK = {"0100007F", "00000000000000000000000001000000", "0000000000000000FFFF00000100007F"}


def test_nodes_come_are_joined_and_go(port, tmp_path, monkeypatch):
    folder = Path(f"/tmp/tailrisk-nodes-{port}")
    bystander = subprocess.Popen([sys.executable, "-c", "input()", str(folder)], stdin=subprocess.PIPE)
    started = run("local-multinode.py", "start", "--nodes", "2", "--cpus", "1", "--port", str(port))
    assert started.returncode == 0, started.stderr
    assert f"--set cluster.address=127.0.0.1:{port}" in started.stdout
    assert stat.S_IMODE((folder / "token").stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert "already" in run("local-multinode.py", "start", "--port", str(port)).stderr

    joined = environment(folder)
    driver = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("nodesdriver.py")), f"127.0.0.1:{port}"],
        env=joined,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    for name, value in (joined | {"RAY_AUTH_MODE": "disabled"}).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ClusterError, match="asks for a token"):
        probe_address(f"127.0.0.1:{port}", timeout_s=60.0)
    out, err = driver.communicate(timeout=90)
    assert driver.returncode == 0, err
    facts = json.loads(out)
    assert len(facts["nodes"]) == 3 and set(facts["ran"]) == set(facts["nodes"])
    assert set(facts["nodes"].values()) == {"127.0.0.1"}

    again = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("sessiondriver.py")), "auto"],
        env=joined | {"RAY_ADDRESS": f"127.0.0.1:{port}"},
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert again.returncode == 0, again.stderr
    told, left = map(json.loads, again.stdout.splitlines())
    assert told["cpus"] == len(facts["nodes"]), "the first that left it has left it running"
    assert left == {"changed": []}

    ours = processes(folder) - {bystander.pid}
    assert len(ours) > 9
    addresses = listening(ours)
    assert addresses and addresses <= LOOPBACK

    assert run("local-multinode.py", "stop", "--port", str(port)).returncode == 0
    assert processes(folder) == {bystander.pid}, "exactly its own processes end"
    assert not any(Path(f"/proc/{pid}/exe").exists() for pid in facts["ran"].values())
    assert not folder.exists()
    assert bystander.poll() is None
    bystander.communicate(b"\n")
    assert run("local-multinode.py", "stop", "--port", str(port)).returncode == 1
