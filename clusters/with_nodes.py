"""Has a cluster that scales bring up nodes, runs a command on them, and lets them go.

    python with_nodes.py --nodes 2 --gpus 1 -- tailrisk audit tailrisk.yaml --set cluster.address=auto

An audit that joins a cluster waits a minute for room and takes the nodes that there are; new ones on a cloud take
longer. This asks the autoscaler for them, waits, and goes on asking while the command runs, so that nodes which the
cloud takes back are replaced. It runs where the cluster is: as a job, or on the head.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time
from types import FrameType
from typing import Any

POLL_S = 2.0


def main() -> int:
    options = parse(sys.argv[1:])
    import ray
    from ray.autoscaler.sdk import request_resources

    ray.init(address="auto", log_to_driver=False, logging_level="error")
    signal.signal(signal.SIGTERM, _leave)  # sent by `ray job stop`, three seconds before SIGKILL
    bundle = {"GPU": options.gpus} if options.gpus else {"CPU": options.cpus}
    process: subprocess.Popen[bytes] | None = None
    try:
        request_resources(bundles=[bundle] * options.nodes)
        for _ in range(options.tries):
            if not _arrived(ray, bundle, options.nodes, options.wait):
                print(
                    f"with_nodes: no {options.nodes} nodes of {bundle} in {options.wait:g} s", file=sys.stderr
                )
                return 1
            process = subprocess.Popen(options.command)
            code = process.wait()
            if (
                code != 1
            ):  # tailrisk's code for errors, such as the loss of all its nodes at once; the rest is final
                break
        return 0 if code in options.also_ok else code
    finally:
        request_resources(num_cpus=0)  # a request that is left behind would keep the nodes for ever
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.wait()
        ray.shutdown()


def parse(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=int, required=True, help="how many, each with the following")
    parser.add_argument("--gpus", type=int, default=0)
    parser.add_argument("--cpus", type=int, default=1, help="where no GPUs are asked for")
    parser.add_argument("--wait", type=float, default=1800.0, help="seconds until the nodes must be there")
    parser.add_argument("--tries", type=int, default=1, help="how often the command may end with code 1")
    parser.add_argument(
        "--also-ok", type=int, action="append", default=[], metavar="CODE", help="ends with 0 too"
    )
    parser.add_argument("command", nargs="+", help="after --")
    return parser.parse_args(words)


def _arrived(ray: Any, bundle: dict[str, int], nodes: int, wait_s: float) -> bool:
    deadline = time.monotonic() + wait_s
    while True:
        alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if sum(all(node.get(name, 0) >= n for name, n in bundle.items()) for node in alive) >= nodes:
            return True
        if time.monotonic() >= deadline:
            return False
        time.sleep(POLL_S)


def _leave(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
