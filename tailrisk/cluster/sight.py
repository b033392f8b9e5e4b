"""What the cluster looks like to those who watch an audit: nodes, workers, what waits and what runs."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from tailrisk.audit.protocols import ClusterStatus
from tailrisk.events import event

if TYPE_CHECKING:
    from tailrisk.cluster.pool import Pool

TELL_S = 1.0
"""Watchers are told no more often."""
NODES_S = 5.0

logger = logging.getLogger(__name__)


class Sight:
    """``look`` is called by the driver whenever it comes by; it costs nothing between two tellings.

    Nodes are counted in a thread: Ray's answer may be late, and nobody is to wait for it.
    """

    def __init__(self, pools: Sequence[Pool]) -> None:
        self._pools = pools
        self._watchers: list[Callable[[ClusterStatus], None]] = []
        self._told = 0.0
        self._nodes: dict[str, str] | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._count, name="tailrisk-nodes", daemon=True)
        self._thread.start()

    def status(self) -> ClusterStatus:
        return ClusterStatus(len(self._nodes or {}), tuple(pool.status() for pool in self._pools))

    def watch(self, watcher: Callable[[ClusterStatus], None]) -> None:
        """Tell ``watcher`` from now on; one that raises is logged once and told no more."""
        self._watchers.append(watcher)
        self._told = 0.0

    def look(self) -> None:
        now = time.monotonic()
        if not self._watchers or now - self._told < TELL_S:
            return
        self._told = now
        status = self.status()
        for watcher in list(self._watchers):
            try:
                watcher(status)
            except Exception:
                logger.exception("a watcher of the cluster failed and is told no more")
                self._watchers.remove(watcher)

    def close(self) -> None:
        self._over.set()
        self._thread.join(timeout=NODES_S)

    def _count(self) -> None:
        import ray

        while not self._over.is_set():
            try:
                alive = {n["NodeID"]: n["NodeManagerAddress"] for n in ray.nodes() if n["Alive"]}
            except Exception as error:  # no answer, or the connection is gone: the driver will say so itself
                logger.debug("nodes are not known", exc_info=error)
            else:
                self._tell_changes(alive)
                self._nodes = alive
            self._over.wait(NODES_S)

    def _tell_changes(self, alive: dict[str, str]) -> None:
        before = self._nodes if self._nodes is not None else alive
        for node in alive.keys() - before.keys():
            event("node_joined", node=node[:12], address=alive[node], nodes=len(alive))
        for node in before.keys() - alive.keys():
            event("node_lost", node=node[:12], address=before[node], nodes=len(alive))
