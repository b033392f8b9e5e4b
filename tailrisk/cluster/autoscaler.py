"""What the cluster's autoscaler says, if it has one: does it bring up nodes, and could one of them hold a worker?

Ray starts an autoscaler with every cluster; one that has no nodes to bring up only mirrors those that are there.
It tells of workers that fit on no kind of node it knows in its second version only (that of ``ray up`` since Ray
2.50, and of KubeRay where ``autoscalerOptions.version`` is v2).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from tailrisk.cluster.resources import demand
from tailrisk.config import PoolConfig

_TIMEOUT_S = 10.0
_MIRRORED = "node_"
"""Begins the names of the kinds of nodes in an autoscaler that brings up none."""


class Report(NamedTuple):
    """``scales``: it brings up nodes; ``impossible``: none for this worker; ``failed``: why the last did not come."""

    scales: bool
    impossible: bool = False
    starting: int = 0
    failed: str = ""


def report(pool: PoolConfig) -> Report:
    """What it says about a worker of the pool that pends; that of a cluster without one where it says nothing."""
    import ray
    from ray.core.generated import autoscaler_pb2

    messages: Any = autoscaler_pb2
    reply = messages.GetClusterStatusReply()
    try:
        client: Any = ray._private.worker.global_worker.gcs_client  # pyright: ignore
        reply.ParseFromString(client.get_cluster_status(timeout_s=_TIMEOUT_S))
        first = client.internal_kv_get(b"__autoscaling_status", None, timeout=_TIMEOUT_S)
    except Exception:  # a cluster without any says so in a dozen ways
        return Report(scales=False)
    kinds = {node.ray_node_type_name for node in reply.cluster_resource_state.node_states}
    said = reply.autoscaling_state
    failures = [" ".join(one.reason.split())[:200] for one in said.failed_instance_requests]
    return Report(
        scales=_names_kinds(kinds) or _names_kinds(_kinds_of_first_version(first)),
        impossible=_refused(pool, said),
        starting=len(said.pending_instances) + sum(one.count for one in said.pending_instance_requests),
        failed=failures[-1] if failures else "",
    )


def _names_kinds(kinds: Iterable[str]) -> bool:
    return any(kind and not kind.startswith(_MIRRORED) for kind in kinds)


def _kinds_of_first_version(status: bytes | None) -> list[str]:
    try:
        found = json.loads(status or b"{}").get("autoscaler_report") or {}
        return [*found.get("active_nodes", {}), *found.get("pending_launches", {})]
    except (ValueError, AttributeError, TypeError):
        return []


def _refused(pool: PoolConfig, said: Any) -> bool:
    alternatives = [pool.labels, *pool.fallback] if pool.labels else []
    if pool.ranks == 1:
        return any(_asks(one, pool, alternatives) for one in said.infeasible_resource_requests)
    groups = [list(group.requests) for group in said.infeasible_gang_resource_requests]
    groups += [
        list(choice.resource_requests)
        for group in said.infeasible_gang_resource_requests
        for choice in group.bundle_selectors
    ]
    return any(
        len(group) == pool.ranks and all(_asks(one, pool, alternatives) for one in group) for group in groups
    )


def _asks(request: Any, pool: PoolConfig, alternatives: Sequence[Mapping[str, str]]) -> bool:
    """Whether a request is one of the pool's: the same resources, and the same labels in the same order."""
    asked, wanted = dict(request.resources_bundle), demand(pool)
    if asked.keys() != wanted.keys() or any(abs(asked[n] - wanted[n]) > 1e-4 * wanted[n] for n in wanted):
        return False
    selectors = [
        {one.label_key: list(one.label_values) for one in choice.label_constraints}
        for choice in request.label_selectors
        if choice.label_constraints
    ]
    return len(selectors) == len(alternatives) and all(
        found.keys() == labels.keys() and all(v in labels[k] for k, values in found.items() for v in values)
        for found, labels in zip(selectors, alternatives, strict=True)
    )
