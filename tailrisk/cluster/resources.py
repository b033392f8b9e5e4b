"""What a worker asks of its node, and which of it the cluster lacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tailrisk.config import PoolConfig
from tailrisk.errors import ClusterError
from tailrisk.nodelabels import fits

_ACCELERATOR = "accelerator_type:"


class Node(NamedTuple):
    """``resources``: in total, as Ray names them (memory in bytes)."""

    resources: Mapping[str, float]
    labels: Mapping[str, str] = {}


def demand(pool: PoolConfig) -> dict[str, float]:
    """What one process of a worker asks of its node; a worker has ``pool.ranks`` of them, all on one node."""
    wanted = {"CPU": pool.num_cpus, "GPU": pool.num_gpus, "memory": float(pool.memory or 0)}
    if pool.accelerator is not None:
        # The share that Ray itself takes: it is there to be found, not to be used up.
        wanted[f"{_ACCELERATOR}{pool.accelerator}"] = 0.001
    return {name: n for name, n in wanted.items() if n > 0}


def amounts(pool: PoolConfig) -> dict[str, Any]:
    """The same as options of a Ray actor."""
    asked: dict[str, Any] = {"num_cpus": pool.num_cpus, "num_gpus": pool.num_gpus}
    if pool.memory is not None:
        asked["memory"] = pool.memory
    if pool.accelerator is not None:
        asked["accelerator_type"] = pool.accelerator
    return asked


def options(pool: PoolConfig) -> dict[str, Any]:
    """All that an actor asks for, as its options: the amounts, and on which nodes. Needs a session."""
    asked = amounts(pool)
    if pool.labels:
        asked["label_selector"] = dict(pool.labels)
        if pool.fallback:
            asked["fallback_strategy"] = [{"label_selector": dict(labels)} for labels in pool.fallback]
    elif not demand(pool):
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        # Ray puts those that ask for nothing anywhere, and a node with one on it counts as busy for as long.
        here = ray.get_runtime_context().get_node_id()
        asked["scheduling_strategy"] = NodeAffinitySchedulingStrategy(here, soft=True)
    return asked


def missing(pool: PoolConfig, nodes: Sequence[Node], workers: int) -> str:
    """'' if so many workers of the pool fit on these nodes while they are empty, else what is missing."""
    wanted = {name: n * pool.ranks for name, n in demand(pool).items()}
    alternatives = [pool.labels, *pool.fallback]
    nodes = [node for node in nodes if any(fits(labels, node.labels) for labels in alternatives)]
    if not nodes and pool.labels:
        return f"no node has the labels {labels_text(pool)}"
    if not wanted:
        return ""
    largest = {name: max((node.resources.get(name, 0.0) for node in nodes), default=0.0) for name in wanted}
    labelled = f" with the labels {labels_text(pool)}" if pool.labels else ""
    for name, n in wanted.items():
        if largest[name] < n:
            if name.startswith(_ACCELERATOR):
                return f"no node{labelled} has a GPU of the type {pool.accelerator}"
            has = text({name: largest[name]}).removesuffix(f" {name}")
            return f"a worker needs {text({name: n})}, and the largest node{labelled} has {has}"
    fit = sum(
        int(min(node.resources.get(name, 0.0) / n for name, n in wanted.items()) + 1e-9) for node in nodes
    )
    if fit == 0:
        return f"no node{labelled} has all of {text(wanted)} that a worker needs"
    if fit < workers:
        total = {name: sum(node.resources.get(name, 0.0) for node in nodes) for name in wanted}
        return (
            f"{workers} workers of {text(wanted)} each were asked for (min: {workers}), "
            f"and {fit} fit into a cluster of {text(total)}"
        )
    return ""


def lacking(name: str, lack: str) -> ClusterError:
    """The error for a cluster that cannot hold the workers of a pool."""
    return ClusterError(
        f"cluster.{name}: {lack}; lower what a worker of cluster.{name} asks for (num_cpus, num_gpus, memory, "
        "accelerator, labels) or min, or use a larger cluster"
    )


def no_room(name: str, pool: PoolConfig, waited_s: float) -> ClusterError:
    """The error for a worker that fits in principle but found no room, with what is free now."""
    import ray

    available: dict[str, Any] = ray.available_resources()
    wanted = demand(pool)
    free = text({name: float(available.get(name, 0.0)) for name in wanted})
    return ClusterError(
        f"cluster.{name}: a worker that needs {worker_text(pool)} found no room "
        f"in {waited_s:.0f} s; free now: {free or 'nothing was asked'}; "
        "wait until other jobs end, raise cluster.wait_for_nodes_s, or lower what a worker asks for"
    )


def worker_text(pool: PoolConfig) -> str:
    """What a worker needs, in words."""
    wanted = text({name: n * pool.ranks for name, n in demand(pool).items()}) or "no resources"
    return f"{wanted} (labels {labels_text(pool)})" if pool.labels else wanted


def labels_text(pool: PoolConfig) -> str:
    return " or ".join(
        ", ".join(f"{key}: {value}" for key, value in labels.items())
        for labels in (pool.labels, *pool.fallback)
    )


def text(resources: Mapping[str, float]) -> str:
    return ", ".join(
        f"{n / 2**30:.3g} GiB memory"
        if name == "memory"
        else f"type {name.removeprefix(_ACCELERATOR)}"
        if name.startswith(_ACCELERATOR)
        else f"{n:g} {name}"
        for name, n in resources.items()
    )


def present() -> list[Node]:
    """The nodes that are there."""
    import ray

    return [Node(dict(n["Resources"]), dict(n.get("Labels") or {})) for n in ray.nodes() if n["Alive"]]
