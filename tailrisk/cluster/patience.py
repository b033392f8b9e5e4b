"""How long workers are waited for that have no node yet, and what is said meanwhile.

Workers that are asked for pend, and on a cluster that scales that is what brings nodes. So nothing is asked for
beside them, and nothing stays asked for when they are ended. Waiting ends at once where no node can ever come that
holds a worker, as far as the cluster says so.
"""

from __future__ import annotations

import logging
import time

from tailrisk.cluster import autoscaler, resources
from tailrisk.config import ClusterConfig, PoolConfig

FIXED_S = 60.0
"""On a cluster of the nodes that it has; some may just be joining."""
SCALING_S = 1800.0
"""On one that brings up nodes: machines start in minutes, and spot machines are not always to be had."""
LOOK_EVERY_S = 2.0
TELL_EVERY_S = 30.0
SURE_AFTER_S = 5.0
"""An autoscaler that says so for so long means it."""

logger = logging.getLogger(__name__)


class Patience:
    """That of one pool with its workers, which are looked at whenever the pool is tended."""

    def __init__(self, name: str, pool: PoolConfig, cluster: ClusterConfig) -> None:
        self._name = name
        self._pool = pool
        self._local = cluster.address == "local"
        self._given = cluster.wait_for_nodes_s
        self._since: float | None = None
        self._placed_before = False
        self._looked = self._told = self._refused = 0.0
        self._said = autoscaler.Report(scales=False)

    @property
    def limit_s(self) -> float:
        return self._given or (SCALING_S if self._said.scales else FIXED_S)

    def require_room(self) -> None:
        """On a cluster that does not scale, wait for one that is large enough for ``min`` workers.

        Raises:
            ClusterError: it is not; says what was requested and what there is.
        """
        began = time.monotonic()
        while True:
            if not self._local:
                self._said = autoscaler.report(self._pool)
            lack = resources.missing(self._pool, resources.present(), max(1, self._pool.min))
            if self._said.scales or not lack:
                return
            waited = time.monotonic() - began
            if self._local or waited >= self.limit_s:
                raise resources.lacking(self._name, lack)
            self._tell(waited, time.monotonic(), lack)
            time.sleep(1.0)

    def check(self, *, placed: int, pending: int) -> None:
        """``placed`` and ``pending``: how many workers have a node, and have none yet.

        Raises:
            ClusterError: it has been so for too long, or no node can come that would hold one.
        """
        now = time.monotonic()
        self._placed_before = self._placed_before or placed > 0
        if placed or not pending:
            self._since = None
            return
        if self._since is None:
            self._since = self._told = self._refused = now
        waited = now - self._since
        if not self._local and now - self._looked >= LOOK_EVERY_S:
            self._looked, self._said = now, autoscaler.report(self._pool)
            # Where one has come before, it is said only because those that are being ended still count.
            if self._placed_before or not (self._said.scales and self._said.impossible and self._lack()):
                self._refused = now
            elif now - self._refused >= SURE_AFTER_S:
                needs = resources.worker_text(self._pool)
                raise resources.lacking(
                    self._name,
                    f"a worker needs {needs}; no node has that, and the cluster's autoscaler says that it has no "
                    "such node to bring up",
                )
        if waited > self.limit_s:
            if lack := self._lack():
                raise resources.lacking(self._name, f"{lack}, after {waited:.0f} s of waiting for nodes")
            raise resources.no_room(self._name, self._pool, waited)
        self._tell(waited, now, "no worker has a node")

    def _lack(self) -> str:
        return resources.missing(self._pool, resources.present(), 1)

    def _tell(self, waited: float, now: float, why: str) -> None:
        if now - self._told < TELL_EVERY_S:
            return
        self._told = now
        said = self._said
        more = [f"{said.starting} nodes are being started"] if said.starting else []
        more += [f"the last one did not come: {said.failed}"] if said.failed else []
        logger.warning(
            "cluster.%s: %s; waiting for %s, for %.0f s of at most %.0f s (cluster.wait_for_nodes_s)%s",
            self._name,
            why,
            resources.worker_text(self._pool),
            waited,
            self.limit_s,
            "".join(f"; {one}" for one in more),
        )
