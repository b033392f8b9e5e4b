"""A cluster on this machine that brings up nodes by itself: Ray's own autoscaler over a cloud that is pretended.

Its head has no CPU and no GPU. All processes are of one group, which is what ends, and none other. It asks for the
token of this process's own sessions.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from ray._private import services

from tailrisk.cluster import session

HOST = services.get_node_ip_address()
HEAD_KIND, HEAD_ID = "ray.head.default", "f" * 51 + "00000"
LISTS = [
    "cluster_synced_files",
    "initialization_commands",
    "setup_commands",
    "head_setup_commands",
    "worker_setup_commands",
    "head_start_ray_commands",
    "worker_start_ray_commands",
    "rsync_exclude",
    "rsync_filter",
]


def environment(**more: str) -> dict[str, str]:
    """What a process needs to join: Ray's native library reads the token once for all sessions of a process."""
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": session._TOKEN,
        "RAY_USAGE_STATS_ENABLED": "0",
        **more,
    }


@contextlib.contextmanager
def scaling_cluster(
    kinds: dict[str, dict[str, Any]], *, version: int = 2, idle_s: float = 3.0, path: Path
) -> Iterator[str]:
    """The address of a head whose autoscaler brings up nodes of these ``kinds``: each has resources, max_workers and
    perhaps labels. ``path``: where the workers find modules."""
    port = free_port()
    folder = Path(f"/tmp/trs-{port}")
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(config(kinds, port, idle_s)))
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    more = {
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "PYTHONPATH": f"{path}:{os.environ.get('PYTHONPATH', '')}",
        "RAY_FAKE_CLUSTER": "1",
        "RAY_NODE_TYPE_NAME": HEAD_KIND,
        "RAY_CLOUD_INSTANCE_ID": HEAD_ID,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_ID,
        "RAY_worker_niceness": "0",
        "RAY_health_check_initial_delay_ms": "0",
        "RAY_health_check_period_ms": "500",
        "RAY_health_check_timeout_ms": "2000",
        "RAY_health_check_failure_threshold": "3",
        "RAY_enable_autoscaler_v2": str(version - 1),
    }
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", f"--port={port}"]
    command += [
        f"--node-ip-address={HOST}",
        "--num-cpus=0",
        "--include-dashboard=false",
        "--disable-usage-stats",
    ]
    command += [f"--temp-dir={folder}/ray", f"--autoscaling-config={folder}/config.yaml"]
    command += [f"--object-store-memory={100 * 2**20}"]
    with (folder / "head.log").open("wb") as out:
        head = subprocess.Popen(
            command, env=inherited | environment(**more), stdout=out, stderr=out, start_new_session=True
        )
    try:
        _await(head, port, folder)
        yield f"{HOST}:{port}"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(head.pid, signal.SIGKILL)
        head.wait()
        shutil.rmtree(folder, ignore_errors=True)


def config(kinds: dict[str, dict[str, Any]], port: int, idle_s: float) -> dict[str, Any]:
    """Ray's own example of a pretended cloud is not in its package."""
    provider = {
        "type": "external",
        "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
        "gcs_address": f"{HOST}:{port}",
        "head_node_id": HEAD_ID,
        "use_node_id_as_ip": True,
        "disable_node_updaters": True,
        "disable_launch_config_check": True,
        "launch_multiple": True,
    }
    head = {"resources": {"CPU": 0}, "max_workers": 0}
    common = {"node_config": {}, "min_workers": 0}
    return {
        "cluster_name": "pretended",
        "max_workers": sum(kind["max_workers"] for kind in kinds.values()),
        "upscaling_speed": 100.0,
        "idle_timeout_minutes": idle_s / 60,
        "provider": provider,
        "head_node_type": HEAD_KIND,
        "available_node_types": {name: common | kind for name, kind in {HEAD_KIND: head, **kinds}.items()},
        "auth": {},
        "docker": {},
        "file_mounts": {},
        "file_mounts_sync_continuously": False,
        **{name: [] for name in LISTS},
    }


def raylet_of(node: str) -> int:
    """The process that is the node: only that of a node of this machine has its id in the environment."""
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            program = (place / "cmdline").read_bytes().split(b"\0")[0]
            if program.endswith(b"/raylet") and node.encode() in (place / "environ").read_bytes():
                return int(place.name)
    raise LookupError(node)


def free_port() -> int:
    """One outside the range of Ray's workers."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        port = probe.getsockname()[1]
    return port if port > 19999 else port + 20000


def _await(head: subprocess.Popen[bytes], port: int, folder: Path) -> None:
    deadline = time.monotonic() + 60
    while "Ray runtime started." not in (text := (folder / "head.log").read_text(errors="replace")):
        if head.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"Ray did not start on port {port}:\n{text[-2000:]}")
        time.sleep(0.1)
