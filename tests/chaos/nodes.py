"""A Ray of several nodes on this machine that lose power and join at will, kept by a process of its own.

The process that asks never connects to Ray itself, so that drivers come and go, and are killed, while the cluster
lives on. When it ends, also by a crash, the cluster goes with it.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
START_TIMEOUT_S = 120.0
# A node whose process is gone refuses connections at once, so three looks are enough to call it dead; one that is
# only slow, on a machine with more work than cores, has five seconds for each answer.
HEALTH = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 5000,
    "health_check_failure_threshold": 3,
}
OBJECT_STORE_BYTES = 80 * 2**20


class Nodes:
    """A head that runs nothing and ``count`` nodes of ``cpus`` logical CPUs; a context manager.

    ``variables``: what a process needs in its environment to join, and to import what the tests import; workers
    have them too. ``folder``: Ray's, with its logs.
    """

    def __init__(self, count: int = 2, cpus: int = 2, **variables: str) -> None:
        # Short, and not below a long TMPDIR: the paths of Ray's sockets may have 107 bytes.
        self.folder = Path(tempfile.mkdtemp(prefix="trn-", dir="/tmp"))
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
        self.variables = inherited | {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # nodes and drivers then keep to loopback
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_worker_niceness": "0",  # at Ray's default of 15 workers starve beside other programs
            "PYTHONPATH": os.pathsep.join([str(HERE.parent), str(HERE.parents[1])]),
            "OMP_NUM_THREADS": "1",
            "HOME": str(self.folder),
            **variables,
        }
        command = [sys.executable, "-m", "chaos.nodes", str(self.folder), str(count), str(cpus)]
        self._log = (self.folder / "keeper.log").open("wb")
        self._keeper = subprocess.Popen(
            command, env=self.variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log
        )
        try:
            self.address: str = self._answer(START_TIMEOUT_S)
        except BaseException:
            self.close()
            raise

    def add(self) -> str:
        """One more node; its name."""
        return self._ask("add")

    def remove(self) -> tuple[str, int]:
        """Ends the node with most workers, without notice; its name, and how many workers it had."""
        name, workers = self._ask("remove")
        return name, workers

    def workers(self) -> list[int]:
        """The processes of all actors that live or are about to."""
        return self._ask("workers")

    def free(self) -> float:
        """CPUs of all nodes that nobody holds."""
        return self._ask("free")

    def close(self) -> None:
        if self._keeper.stdin:
            self._keeper.stdin.close()
        try:
            self._keeper.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._keeper.kill()  # Ray's reapers end what it began
            self._keeper.wait()
        self._log.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Nodes:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _ask(self, what: str) -> Any:
        assert self._keeper.stdin is not None
        self._keeper.stdin.write(f"{what}\n".encode())
        self._keeper.stdin.flush()
        return self._answer(60.0)

    def _answer(self, timeout_s: float) -> Any:
        assert self._keeper.stdout is not None
        timer = threading.Timer(timeout_s, self._keeper.kill)
        timer.start()
        try:
            line = self._keeper.stdout.readline()
        finally:
            timer.cancel()
        if not line:
            raise RuntimeError(f"the nodes are gone: {(self.folder / 'keeper.log').read_text()[-2000:]}")
        return json.loads(line)


class Keeper:
    def __init__(self, folder: Path, cpus: int) -> None:
        from ray._private import utils
        from ray.cluster_utils import Cluster

        # Otherwise this cluster would be what address="auto" means to everybody on the machine.
        utils.write_ray_address = lambda *_, **__: None
        self._cpus = cpus
        self._cluster = Cluster()
        self._cluster.add_node(
            num_cpus=0,
            temp_dir=str(folder),
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES,
            _system_config=HEALTH,
        )
        self._nodes: dict[str, Any] = {}
        self.address = self._cluster.address
        self._made = 0

    def add(self) -> str:
        self._made += 1
        name = f"node-{self._made}"
        self._nodes[name] = self._cluster.add_node(
            num_cpus=self._cpus, object_store_memory=OBJECT_STORE_BYTES
        )
        return name

    def remove(self) -> tuple[str, int]:
        homes = [a["Address"]["NodeID"] for a in self._actors()]
        name, node = max(self._nodes.items(), key=lambda item: homes.count(item[1].node_id))
        del self._nodes[name]
        self._cluster.remove_node(node, allow_graceful=False)
        return name, homes.count(node.node_id)

    def workers(self) -> list[int]:
        return [a["Pid"] for a in self._actors()]

    def free(self) -> float:
        found = self._cluster.global_state.available_resources_per_node().values()
        return sum(node.get("CPU", 0.0) for node in found)

    def close(self) -> None:
        for node in [*self._cluster.worker_nodes, self._cluster.head_node]:
            self._cluster.remove_node(node, allow_graceful=False)

    def _actors(self) -> list[dict[str, Any]]:
        return [a for a in self._cluster.global_state.actor_table(None).values() if a["State"] != "DEAD"]


def main(folder: str, count: str, cpus: str) -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what Ray prints is no answer
    keeper = Keeper(Path(folder), int(cpus))
    try:
        for _ in range(int(count)):
            keeper.add()
        print(json.dumps(keeper.address), file=answers)
        for line in sys.stdin:
            print(json.dumps(getattr(keeper, line.strip())()), file=answers)
    finally:
        keeper.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
