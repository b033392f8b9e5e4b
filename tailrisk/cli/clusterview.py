"""Who is told of the cluster that an audit runs on: the terminal, Ray's metrics, and the user where it is open."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from tailrisk.audit.protocols import Observer, Watched
from tailrisk.events import event

if TYPE_CHECKING:
    from tailrisk.audit.protocols import Executor
    from tailrisk.cli.progress import Progress
    from tailrisk.config import Config

logger = logging.getLogger(__name__)


def exposure(executor: Executor, config: Config) -> str:
    """A warning where the audit has joined a cluster that is open to others, or ''."""
    if not isinstance(executor, Watched) or config.cluster.address == "local":
        return ""
    from tailrisk.cluster.exposure import of_joined

    try:
        return of_joined()
    except Exception:  # a cluster that does not answer is for the audit itself to meet
        logger.debug("exposure", exc_info=True)
        return ""


def watch_cluster(executor: Executor, shown: Progress, run: str) -> list[Observer]:
    """Further observers of an audit whose executor runs on a cluster; none where it does not."""
    if not isinstance(executor, Watched):
        return []
    executor.watch(shown.cluster_changed)
    try:
        from tailrisk.cluster.metrics import RunMetrics, metrics_address

        metrics = RunMetrics(run)
        event("cluster", metrics=metrics_address())
    except Exception:  # an audit does without
        logger.exception("there are no metrics of this run")
        return []
    executor.watch(metrics.cluster_changed)
    return [metrics]
