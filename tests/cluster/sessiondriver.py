"""A driver process for the session tests: ``python sessiondriver.py ADDRESS [stay]``.

Prints one JSON line when it is connected and has heard from an actor; then leaves, or stays until it is
killed.
"""

from __future__ import annotations

import json
import os
import sys
import time

import ray

from tailrisk.cluster import ray_session
from tailrisk.config import ClusterConfig, PoolConfig


def main(address: str, stay: bool) -> None:
    before = dict(os.environ)
    try:
        with ray_session(ClusterConfig(address=address, models=PoolConfig(max=3, num_cpus=2))):
            pid = ray.get(ray.remote(_Who).options(num_cpus=0).remote().pid.remote(), timeout=60)
            facts = {
                "cpus": ray.cluster_resources()["CPU"],
                "actor": pid,
                "session": ray._private.worker._global_node.get_session_dir_path(),  # pyright: ignore
                "gcs": ray.get_runtime_context().gcs_address,
            }
            print(json.dumps(facts), flush=True)
            while stay:
                time.sleep(0.1)
    except KeyboardInterrupt:
        print(json.dumps({"interrupted": True}), flush=True)
    assert not ray.is_initialized()
    changed = {k for k in before.keys() | os.environ.keys() if before.get(k) != os.environ.get(k)}
    print(
        json.dumps({"changed": sorted(k for k in changed if "AUTH" in k or k == "RAY_ADDRESS")}), flush=True
    )


class _Who:
    def pid(self) -> int:
        return os.getpid()


if __name__ == "__main__":
    main(sys.argv[1], "stay" in sys.argv[2:])
