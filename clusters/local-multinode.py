"""A Ray cluster of several nodes on this machine, to try out what an audit on a cluster does. Linux only.

    python clusters/local-multinode.py start --nodes 2 --port 26379
    python clusters/local-multinode.py stop --port 26379

``start`` brings up a head and so many more nodes, and says how to join them. All their ports are on loopback, and
nobody talks to them without the random token in their folder, which only its owner can read. ``stop`` ends exactly
the processes that ``start`` began and theirs, and removes the folder: other Ray clusters of yours go on (``ray stop``
would end them too).
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

HOST = "127.0.0.1"
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 10.0
OBJECT_STORE_BYTES = 256 * 2**20
STARTED = "Ray runtime started."

# Ray has nodes join by an address that other machines reach, even where loopback was asked for. Where this variable
# is 0 (as on macOS) it keeps to loopback, but then `ray start` refuses to add nodes: so that one asks for loopback
# itself, and everything that it starts has the variable.
LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
LAUNCH = f"""
import os, sys
os.environ["{LOOPBACK}"] = "1"
from ray._private import services
from ray.scripts.scripts import main
services.get_node_ip_address = lambda address=None: "{HOST}"
os.environ["{LOOPBACK}"] = "0"
sys.exit(main())
"""


def folder_of(port: int) -> Path:
    # Short: the paths of Ray's sockets below it may have 107 bytes.
    return Path(f"/tmp/tailrisk-nodes-{port}")


def start(port: int, nodes: int, cpus: int, dashboard: int | None) -> int:
    folder = folder_of(port)
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        print(f"{folder} is there already: first stop what was started on port {port}", file=sys.stderr)
        return 1
    if _answers(port):
        folder.rmdir()
        print(f"something else listens on port {port}: choose another one", file=sys.stderr)
        return 1
    try:
        _start(folder, port, nodes, cpus, dashboard)
    except BaseException as error:  # also Ctrl-C: half a cluster is of no use
        if isinstance(error, RuntimeError):
            print(error, file=sys.stderr)
        stop(port)
        if not isinstance(error, RuntimeError):
            raise
        return 1
    print(f"A head and {nodes} more nodes of {cpus} CPUs each, on this machine only. To use them:")
    print(f"  . {folder}/env")
    print(f"  tailrisk audit my-audit/tailrisk.yaml --set cluster.address={HOST}:{port}")
    if dashboard:
        print(f"The dashboard, which asks for the token in {folder}/token: http://{HOST}:{dashboard}")
    print(f"To stop them:\n  python {sys.argv[0]} stop --port {port}")
    return 0


def _start(folder: Path, port: int, nodes: int, cpus: int, dashboard: int | None) -> None:
    token = folder / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    join = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), LOOPBACK: "0"}
    lines = [*(f"export {name}={value}" for name, value in join.items()), "unset RAY_ADDRESS RAY_AUTH_TOKEN"]
    (folder / "env").write_text("\n".join(lines) + "\n")

    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= join | {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",  # nothing waits for work in flight when it stops
    }
    # Ports that Ray does not choose itself would meet those of other nodes.
    common = [f"--num-cpus={cpus}", f"--object-store-memory={OBJECT_STORE_BYTES}", "--block"]
    common += ["--min-worker-port=0", "--max-worker-port=0", "--disable-usage-stats"]
    head = ["--head", f"--port={port}", f"--include-dashboard={bool(dashboard)}"]
    head += [f"--dashboard-host={HOST}", f"--ray-client-server-port={_free_port()}"]
    head += [f"--dashboard-port={dashboard}"] if dashboard else []
    joining = [f"--address={HOST}:{port}", "--include-log-monitor=false"]  # one for a machine is enough
    started: list[list[int]] = []
    logs: list[tuple[subprocess.Popen[bytes], Path]] = []
    for name in ["head", *(f"node-{i + 1}" for i in range(nodes))]:
        command = [sys.executable, "-c", LAUNCH, "start", *(head if name == "head" else joining), *common]
        command.append(f"--dashboard-agent-listen-port={_free_port()}")
        # A folder each: nodes that start at the same time would take the same names for their sockets.
        command.append(f"--temp-dir={folder / name}")
        log = folder / f"{name}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        started.append([process.pid, _born(process.pid)])
        (folder / "nodes.json").write_text(json.dumps(started))
        logs.append((process, log))
        if name == "head":  # the others look for it
            _await(logs)
    _await(logs)


def _await(logs: list[tuple[subprocess.Popen[bytes], Path]]) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    for process, log in logs:
        while STARTED not in (text := log.read_text(errors="replace")):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"Ray did not start ({log.stem}):\n{text[-2000:]}")
            time.sleep(0.1)


def stop(port: int) -> int:
    folder = folder_of(port)
    try:
        started = json.loads((folder / "nodes.json").read_text())
    except FileNotFoundError:
        started = []
        if not folder.exists():
            print(f"nothing was started on port {port}", file=sys.stderr)
            return 1
    # A number may belong to another process by now; together with the time of its birth it does not.
    ours = _with_descendants({(pid, born) for pid, born in started})
    for pid, born in started:
        _signal(pid, born, signal.SIGTERM)
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while _alive(ours) and time.monotonic() < deadline:
        time.sleep(0.1)
    for pid, born in _alive(ours):
        _signal(pid, born, signal.SIGKILL)
    shutil.rmtree(folder)
    print(f"Stopped {len(started)} nodes.")
    return 0


def _stat(pid: int) -> tuple[int, int, str] | None:
    """Parent, time of birth and state; None: there is no such process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, IndexError):
        return None
    return int(fields[1]), int(fields[19]), fields[0]


def _born(pid: int) -> int:
    stat = _stat(pid)
    return stat[1] if stat else -1


def _alive(processes: set[tuple[int, int]]) -> set[tuple[int, int]]:
    return {(p, b) for p, b in processes if (stat := _stat(p)) and stat[1] == b and stat[2] != "Z"}


def _with_descendants(roots: set[tuple[int, int]]) -> set[tuple[int, int]]:
    everyone = {int(p.name): s for p in Path("/proc").glob("[0-9]*") if (s := _stat(int(p.name)))}
    found = {(pid, born) for pid, born in roots if pid in everyone and everyone[pid][1] == born}
    while more := {
        (pid, born)
        for pid, (parent, born, _) in everyone.items()
        if (pid, born) not in found and parent in {p for p, _ in found}
    }:
        found |= more
    return found


def _signal(pid: int, born: int, number: signal.Signals) -> None:
    if _alive({(pid, born)}):
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _answers(port: int) -> bool:
    with suppress(OSError), socket.create_connection((HOST, port), timeout=1.0):
        return True
    return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    begin, end = verbs.add_parser("start"), verbs.add_parser("stop")
    for verb in (begin, end):
        verb.add_argument("--port", type=int, default=26379, help="the head's; not within 10002-19999")
    begin.add_argument("--nodes", type=int, default=2, help="how many besides the head")
    begin.add_argument(
        "--cpus", type=int, default=os.cpu_count() or 1, help="each node says that it has so many"
    )
    begin.add_argument("--dashboard", type=int, metavar="PORT", help="with the dashboard, for ray job submit")
    options = parser.parse_args()
    if options.verb == "stop":
        return stop(options.port)
    return start(options.port, options.nodes, options.cpus, options.dashboard)


if __name__ == "__main__":
    sys.exit(main())
