"""An audit's numbers as Ray metrics, which every node of the cluster offers to Prometheus.

Ray writes ``ray_`` before the names, and ``_total`` behind those of counters. They count what this driver has done: a
resumed run begins at 0. Tags are the run's name, a pool, a stage or a state; no ids of prompts, and no texts, for the
address of the metrics answers without a token. A batch costs a few increments, a draw nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tailrisk.audit.protocols import ClusterStatus, Silent
from tailrisk.records import BatchFailure, BatchResult, RoundPlan, Verdict

SECONDS = [0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0]
COUNTERS = {
    "draws": "Responses drawn and judged",
    "tokens": "Tokens generated",
    "hits": "Draws that were judged harmful",
    "undetermined": "Draws that the judge left undetermined",
    "retries": "Calls of workers that were cut short or raised, and were tried again",
    "preemptions": "Workers lost because their node was told to end",
}
GAUGES = {
    "batches": (
        "Batches: waiting (not drawn, or not judged yet), running on a model worker, done, failed",
        "state",
    ),
    "workers": (
        "Workers that are placing (wait for a node), building (load a model) or ready",
        "pool",
        "stage",
    ),
    "nodes": ("Nodes of the cluster",),
}


class RunMetrics(Silent):
    """An observer of the audit, and through ``cluster_changed`` of the cluster. Needs a Ray session."""

    def __init__(self, run: str) -> None:
        from ray.util.metrics import Counter, Gauge, Histogram

        def named(make: Callable[..., Any], name: str, text: str, *tags: str, **more: Any) -> Any:
            metric = make(f"tailrisk_{name}", description=text, tag_keys=("run", *tags), **more)
            return metric.set_default_tags({"run": run})

        self._counters = {name: named(Counter, name, text) for name, text in COUNTERS.items()}
        self._gauges = {name: named(Gauge, name, *about) for name, about in GAUGES.items()}
        self._seconds = named(
            Histogram, "batch_seconds", "Seconds to draw and score a batch", boundaries=SECONDS
        )
        self._planned = self._done = self._failed = self._running = 0
        self._seen = dict.fromkeys(("retries", "preemptions"), 0)

    def round_started(self, plan: RoundPlan) -> None:
        self._planned = self._done + self._failed + len(plan.batches)
        self._set_batches()

    def batch_done(self, outcome: BatchResult | BatchFailure) -> None:
        if isinstance(outcome, BatchFailure):
            self._failed += 1
            return
        self._done += 1
        self._add("draws", outcome.n)
        self._add("tokens", sum(map(len, outcome.tokens)))
        self._add("hits", int((outcome.verdicts == Verdict.HARM).sum()))
        self._add("undetermined", int((outcome.verdicts == Verdict.UNDETERMINED).sum()))
        self._seconds.observe(max(outcome.seconds, 0.0))

    def round_finished(self, state: object, estimates: object) -> None:
        self._running = 0
        self._set_batches()

    def cluster_changed(self, status: ClusterStatus) -> None:
        self._gauges["nodes"].set(status.nodes)
        for pool in status.pools:
            for stage in ("placing", "building", "ready"):
                self._gauges["workers"].set(getattr(pool, stage), tags={"pool": pool.name, "stage": stage})
        for name in self._seen:
            now = sum(getattr(pool, name) for pool in status.pools)
            self._add(name, now - self._seen[name])
            self._seen[name] = max(now, self._seen[name])
        self._running = status.pools[0].running
        self._set_batches()

    def _add(self, name: str, n: int) -> None:
        if n > 0:
            self._counters[name].inc(n)

    def _set_batches(self) -> None:
        waiting = max(self._planned - self._done - self._failed - self._running, 0)
        numbers = {
            "waiting": waiting,
            "running": self._running,
            "done": self._done,
            "failed": self._failed,
        }
        for state, number in numbers.items():
            self._gauges["batches"].set(number, tags={"state": state})


def metrics_address() -> str | None:
    """Where the node of this process offers its metrics; None where that is not known. Needs a Ray session."""
    import ray

    own = ray.get_runtime_context().get_node_id()
    for node in ray.nodes():
        if node["NodeID"] == own and node.get("MetricsExportPort", 0) > 0:
            return f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    return None
