"""Can the cluster hold the workers at all? The answer names the resource that is missing."""

from __future__ import annotations

import time
from typing import Any

from tailrisk.config import PoolConfig
from tailrisk.errors import ClusterError

PLACE_TIMEOUT_S = 60.0
"""How long a worker may wait for room in the cluster."""


def demand(pool: PoolConfig) -> dict[str, float]:
    """What one worker of the pool asks of a node."""
    return {name: n for name, n in (("CPU", pool.num_cpus), ("GPU", pool.num_gpus)) if n > 0}


def missing(wanted: dict[str, float], nodes: list[dict[str, float]], workers: int) -> str:
    """'' if ``workers`` workers that each want ``wanted`` fit on the empty nodes, else what is missing.

    ``nodes`` holds each node's resources in total.
    """
    if not wanted:
        return ""
    largest = {name: max((node.get(name, 0.0) for node in nodes), default=0.0) for name in wanted}
    for name, n in wanted.items():
        if largest[name] < n:
            return f"a worker needs {n:g} {name}, and the largest node has {largest[name]:g}"
    fit = sum(int(min(node.get(name, 0.0) / n for name, n in wanted.items()) + 1e-9) for node in nodes)
    if fit == 0:
        return f"no node has all of {text(wanted)} that a worker needs"
    if fit < workers:
        total = {name: sum(node.get(name, 0.0) for node in nodes) for name in wanted}
        return (
            f"{workers} workers of {text(wanted)} each were asked for (min: {workers}), "
            f"and {fit} fit into a cluster of {text(total)}"
        )
    return ""


def require_room(name: str, pool: PoolConfig, *, wait_s: float) -> None:
    """Wait up to ``wait_s`` seconds for a cluster that is large enough for the pool's ``min`` workers.

    Raises:
        ClusterError: it is not; says what was requested and what there is.
    """
    deadline = time.monotonic() + wait_s
    while lack := missing(demand(pool), _nodes(), pool.min):
        if time.monotonic() >= deadline:
            raise ClusterError(
                f"cluster.{name}: {lack}; lower num_cpus, num_gpus or min of cluster.{name}, "
                "or use a larger cluster"
            )
        time.sleep(1.0)


def no_room(name: str, pool: PoolConfig, waited_s: float) -> ClusterError:
    """The error for a worker that fits in principle but found no room, with what is free now."""
    import ray

    available: dict[str, Any] = ray.available_resources()
    wanted = demand(pool)
    free = text({name: float(available.get(name, 0.0)) for name in wanted})
    return ClusterError(
        f"cluster.{name}: a worker that needs {text(wanted) or 'no resources'} found no room "
        f"in {waited_s:.0f} s; free now: {free or 'nothing was asked'}; "
        "wait until other jobs end, or lower what a worker asks for"
    )


def text(resources: dict[str, float]) -> str:
    return ", ".join(f"{n:g} {name}" for name, n in resources.items())


def _nodes() -> list[dict[str, float]]:
    import ray

    return [dict(node["Resources"]) for node in ray.nodes() if node["Alive"]]
