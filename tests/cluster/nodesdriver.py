"""A driver on several nodes: ``python nodesdriver.py ADDRESS`` has each node run a task, and prints where it ran."""

from __future__ import annotations

import json
import os
import sys

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from tailrisk.cluster import ray_session
from tailrisk.config import ClusterConfig


@ray.remote
def where() -> tuple[str, int]:
    return ray.get_runtime_context().get_node_id(), os.getpid()


def main(address: str) -> None:
    with ray_session(ClusterConfig(address=address)):
        nodes = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
        tasks = [
            where.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote()
            for node in nodes
        ]
        ran = dict(ray.get(tasks, timeout=60))
    print(json.dumps({"nodes": nodes, "ran": ran}))


if __name__ == "__main__":
    main(sys.argv[1])
