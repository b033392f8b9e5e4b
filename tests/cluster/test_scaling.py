"""An audit on a cluster that begins with no node for workers: its own workers bring the nodes, and they go again."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray
from fakeworkers import FakeJudge, MakeLaws, batches_of, make_config, prompts_of
from scalingcluster import environment, raylet_of, scaling_cluster

from tailrisk.cluster import RayExecutor, ray_session
from tailrisk.config import ClusterConfig
from tailrisk.errors import ClusterError
from tailrisk.records import Batch, BatchFailure

pytestmark = [pytest.mark.cluster, pytest.mark.nightly]

KINDS = {
    "spot": {"resources": {"CPU": 2, "GPU": 1}, "labels": {"ray.io/market-type": "spot"}, "max_workers": 3},
}
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment().items():
            patch.setenv(name, value)
        with scaling_cluster(KINDS, path=HERE) as found, ray_session(ClusterConfig(address=found)):
            yield found


def nodes() -> list[str]:
    return [node["NodeID"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("GPU")]


def until(holds: Callable[[], bool], within_s: float) -> None:
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def nothing_is_asked_for() -> bool:
    from ray.core.generated.autoscaler_pb2 import GetClusterStatusReply

    reply = GetClusterStatusReply()
    client = ray._private.worker.global_worker.gcs_client  # pyright: ignore
    reply.ParseFromString(client.get_cluster_status(timeout_s=10))
    state = reply.cluster_resource_state
    return not (
        state.pending_resource_requests
        or state.pending_gang_resource_requests
        or state.cluster_resource_constraints
    )


def notice(node: str) -> None:
    """What a cloud tells a spot machine before it takes it back."""
    from ray.core.generated.autoscaler_pb2 import DrainNodeReason

    client = ray._private.worker.global_worker.gcs_client  # pyright: ignore
    reason = DrainNodeReason.DRAIN_NODE_REASON_PREEMPTION
    accepted, _ = client.drain_node(node, reason, "taken back", int((time.time() + 60) * 1000))
    assert accepted


def test_nodes_come_with_the_work_are_replaced_when_taken_and_go(address, tmp_path):
    spot = {"ray.io/market-type": "spot"}
    config = make_config(
        address=address,
        models={"max": 2, "num_cpus": 1, "num_gpus": 1, "labels": spot},
        judges={"min": 0, "num_cpus": 0},
        retries=1,
    )
    prompts = prompts_of(*(f"p{i}" for i in range(100)))
    seen: set[str] = set()
    planned: list[str] = []
    done: list[str] = []
    noticed = killed = ""
    deadline = time.monotonic() + 240

    def work() -> Iterator[Batch]:
        """Until another node has come for the one that was taken."""
        for batch in batches_of(prompts, each=10):
            if killed and len(seen) == 3:
                return
            assert time.monotonic() < deadline, (seen, noticed, killed)
            planned.append(batch.key)
            yield batch

    assert nodes() == []
    with RayExecutor(
        config, prompts, laws_factory=MakeLaws(tmp_path, 0.4), judge_factory=FakeJudge
    ) as executor:
        pool = executor._holders["models"]
        first = nodes()
        assert len(first) == 1, "one worker is asked for, so that one node comes"
        assert executor._judges._replicas == []
        for outcome in executor.run(work()):
            # With one try only, a batch that was held to have killed its worker would have failed.
            assert not isinstance(outcome, BatchFailure), outcome.reason
            done.append(outcome.batch.key)
            seen |= set(nodes())
            if len(seen) == 2 and not noticed:
                noticed = first[0]
                notice(noticed)
            if not killed and any(r.leaving and r.calls for r in pool._replicas):
                killed = noticed
                os.kill(raylet_of(killed), signal.SIGKILL)
        assert sorted(done) == sorted(planned)
        assert pool.preempted == 1
        assert len(executor._judges._replicas) == 1
    until(nothing_is_asked_for, 10)
    until(lambda: nodes() == [], 60)


def test_what_no_node_can_have_is_said_at_once_and_is_no_longer_asked_for(address):
    config = make_config(address=address, models={"num_gpus": 3}, judges={"num_cpus": 2, "num_gpus": 1})
    began = time.monotonic()
    with pytest.raises(ClusterError, match=r"cluster\.models: .*3 GPU.*no such node to bring up"):
        RayExecutor(config, prompts_of("p0"), judge_factory=FakeJudge)
    assert time.monotonic() - began < 60, "an audit waits for half an hour where nodes can come"
    until(nothing_is_asked_for, 10)
