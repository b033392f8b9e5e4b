"""How long workers without nodes are waited for, and what an autoscaler's report says: without a cluster."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from tailrisk.cluster import autoscaler, patience, resources
from tailrisk.cluster.patience import FIXED_S, SCALING_S, Patience
from tailrisk.config import ClusterConfig, PoolConfig
from tailrisk.errors import ClusterError

POOL = PoolConfig(num_gpus=2)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """``now``, ``report`` of the autoscaler and the ``nodes`` that are there, to be set by a test."""
    made = SimpleNamespace(now=1000.0, report=autoscaler.Report(scales=True), nodes=[])

    def sleep(seconds: float) -> None:
        made.now += seconds

    monkeypatch.setattr(patience, "time", SimpleNamespace(monotonic=lambda: made.now, sleep=sleep))
    monkeypatch.setattr(autoscaler, "report", lambda pool: made.report)
    monkeypatch.setattr(resources, "present", lambda: made.nodes)
    return made


def waits(world: SimpleNamespace, one: Patience, most: float = 1e5) -> tuple[float, str]:
    """Seconds until it gives up on workers that pend, and what it says then."""
    began = world.now
    with pytest.raises(ClusterError) as given_up:
        while world.now - began < most:
            one.check(placed=0, pending=1)
            world.now += 0.5
    return world.now - began, str(given_up.value)


@pytest.mark.parametrize(
    ("scales", "given", "limit"), [(True, None, SCALING_S), (False, None, FIXED_S), (True, 90.0, 90.0)]
)
def test_patience_is_that_of_the_cluster_or_the_one_given(world, scales, given, limit):
    world.report = autoscaler.Report(scales=scales)
    one = Patience("models", POOL, ClusterConfig(address="auto", wait_for_nodes_s=given))
    took, said = waits(world, one)
    assert limit < took < limit + 2
    assert "needs 1 CPU, and the largest node has 0" in said and "of waiting for nodes" in said


def test_it_begins_anew_when_all_workers_are_lost(world):
    one = Patience("models", POOL, ClusterConfig(address="auto"))
    for _ in range(3):
        one.check(placed=1, pending=3)
        world.now += 2 * SCALING_S
    # While the lost nodes still count, there can be no others: that passes.
    world.report = autoscaler.Report(scales=True, impossible=True)
    took, _ = waits(world, one)
    assert took > SCALING_S


def test_what_can_never_come_is_not_waited_for(world):
    one = Patience("models", POOL, ClusterConfig(address="auto"))
    world.report = autoscaler.Report(scales=True, impossible=True)
    took, said = waits(world, one)
    assert took < 15
    assert "cluster.models: a worker needs 1 CPU, 2 GPU; no node has that" in said and "lower what" in said


def test_a_node_that_is_there_and_busy_is_waited_for(world, monkeypatch):
    world.report = autoscaler.Report(scales=True, impossible=True)
    world.nodes = [resources.Node({"CPU": 8.0, "GPU": 2.0})]
    monkeypatch.setattr(
        resources, "no_room", lambda name, pool, waited: ClusterError(f"no room {waited:.0f}")
    )
    took, said = waits(world, Patience("models", POOL, ClusterConfig(address="auto")))
    assert took > SCALING_S and "no room" in said


def test_a_person_is_told_what_is_waited_for(world, caplog):
    caplog.set_level(logging.WARNING, "tailrisk.cluster.patience")
    world.report = autoscaler.Report(
        scales=True, starting=2, failed="InsufficientInstanceCapacity: none left"
    )
    waits(world, Patience("models", POOL, ClusterConfig(address="auto", wait_for_nodes_s=100)))
    assert len(caplog.messages) == 3
    assert (
        "cluster.models: no worker has a node; waiting for 1 CPU, 2 GPU, for 30 s of at most 100 s"
        in caplog.text
    )
    assert "2 nodes are being started; the last one did not come: InsufficientInstanceCapacity" in caplog.text


@pytest.mark.parametrize(("address", "took"), [("local", 0.0), ("auto", FIXED_S)])
def test_nodes_that_are_all_there_must_hold_min_workers(world, address, took):
    world.report = autoscaler.Report(scales=False)
    world.nodes = [resources.Node({"CPU": 8.0, "GPU": 2.0})] * 2
    Patience("models", PoolConfig(min=2, max=3, num_gpus=2), ClusterConfig(address=address)).require_room()
    began = world.now
    with pytest.raises(ClusterError, match=r"3 workers of .* were asked for .*, and 2 fit"):
        Patience(
            "models", PoolConfig(min=3, max=3, num_gpus=2), ClusterConfig(address=address)
        ).require_room()
    assert world.now - began == took


@pytest.fixture
def reported(monkeypatch: pytest.MonkeyPatch) -> Callable[..., autoscaler.Report]:
    """``reported(pool, reply, status)``: the report made of what Ray's control store has."""
    import ray

    def call(pool: PoolConfig, reply: Any, status: Any = None) -> autoscaler.Report:
        client = SimpleNamespace(
            get_cluster_status=lambda timeout_s: reply.SerializeToString(),
            internal_kv_get=lambda key, namespace, timeout: json.dumps(status).encode() if status else None,
        )
        worker = ray._private.worker.global_worker  # pyright: ignore
        monkeypatch.setattr(worker, "gcs_client", client, raising=False)
        return autoscaler.report(pool)

    return call


def test_an_autoscaler_that_brings_up_nodes_is_told_from_one_that_mirrors_them(reported):
    from ray.core.generated.autoscaler_pb2 import GetClusterStatusReply

    reply = GetClusterStatusReply()
    reply.cluster_resource_state.node_states.add()
    assert not reported(POOL, reply).scales
    mirrored = {"autoscaler_report": {"active_nodes": {"node_4f": 1}, "pending_launches": {}}}
    assert not reported(POOL, reply, mirrored).scales
    assert not reported(POOL, reply, {"autoscaler_report": None}).scales
    assert reported(POOL, reply, {"autoscaler_report": {"active_nodes": {"head": 1}}}).scales
    reply.cluster_resource_state.node_states.add(ray_node_type_name="gpu-spot")
    reply.autoscaling_state.pending_instance_requests.add(count=2)
    reply.autoscaling_state.failed_instance_requests.add(reason="none\nleft")
    assert reported(POOL, reply) == autoscaler.Report(scales=True, starting=2, failed="none left")


def test_a_worker_that_fits_nowhere_is_told_from_others(reported):
    from ray.core.generated.autoscaler_pb2 import GetClusterStatusReply
    from ray.core.generated.common_pb2 import LabelSelectorOperator

    reply = GetClusterStatusReply()
    request = reply.autoscaling_state.infeasible_resource_requests.add()
    for name, n in {"CPU": 1.0, "GPU": 1.0, "memory": 2.0**34, "accelerator_type:H100": 0.001}.items():
        request.resources_bundle[name] = n
    request.label_selectors.add()
    asked = {"num_gpus": 1, "memory": "16GiB", "accelerator": "H100"}
    assert reported(PoolConfig(**asked), reply).impossible
    assert not reported(PoolConfig(**asked | {"memory": "17GiB"}), reply).impossible
    assert not reported(PoolConfig(**asked | {"accelerator": "A100"}), reply).impossible
    spot, other = {"ray.io/market-type": "spot"}, {"zone": "in(a,b)"}
    assert not reported(PoolConfig(**asked, labels=spot), reply).impossible
    is_in = LabelSelectorOperator.LABEL_OPERATOR_IN
    request.label_selectors[0].label_constraints.add(
        label_key="ray.io/market-type", operator=is_in, label_values=["spot"]
    )
    assert reported(PoolConfig(**asked, labels=spot), reply).impossible
    assert not reported(PoolConfig(**asked, labels={"ray.io/market-type": "cheap"}), reply).impossible
    assert not reported(PoolConfig(**asked, labels=spot, fallback=[other]), reply).impossible
    request.label_selectors.add().label_constraints.add(
        label_key="zone", operator=is_in, label_values=["b", "a"]
    )
    assert reported(PoolConfig(**asked, labels=spot, fallback=[other]), reply).impossible


def test_a_sharded_worker_is_one_request_of_all_its_ranks(reported):
    from ray.core.generated.autoscaler_pb2 import GetClusterStatusReply

    two = PoolConfig(num_gpus=1, tensor_parallel=2)
    reply = GetClusterStatusReply()
    group = reply.autoscaling_state.infeasible_gang_resource_requests.add()
    for _ in range(2):
        group.requests.add(resources_bundle={"CPU": 1.0, "GPU": 1.0})
    assert reported(two, reply).impossible
    group.requests.add(resources_bundle={"CPU": 1.0, "GPU": 1.0})
    assert not reported(two, reply).impossible
