"""What becomes of a pool's workers and of the calls that they had: lines for the log, and counts.

Calls are named by their batch's key. What went wrong is told by its kind alone: an error's text may hold an answer.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tailrisk.cluster.tasks import Task
from tailrisk.events import event

if TYPE_CHECKING:
    from tailrisk.cluster.replica import Replica


class Journal:
    """``retries``: calls that were cut short, or raised, and are tried again."""

    def __init__(self, pool: str) -> None:
        self.retries = 0
        self._pool = pool
        self._asked: dict[str, float] = {}

    def asked(self, replica: Replica) -> None:
        self._asked[replica.name] = time.monotonic()
        event("worker_asked", pool=self._pool, worker=replica.name)

    def ready(self, replica: Replica) -> None:
        """``seconds`` since it was asked for: the wait for a node, and loading."""
        seconds = round(time.monotonic() - self._asked[replica.name], 1)
        event("worker_ready", pool=self._pool, worker=replica.name, place=replica.place, seconds=seconds)

    def gone(self, replica: Replica) -> None:
        """A worker that died, hung, or was let go; call it while it still has its calls."""
        self._asked.pop(replica.name, None)
        keys = [call.task.key for call in replica.calls if not call.orphan]
        self.retries += len(keys)
        event("worker_gone", pool=self._pool, worker=replica.name, place=replica.place, cut_short=keys)

    def raised(self, task: Task, place: str, error: BaseException) -> None:
        """A call that is tried again."""
        self.retries += 1
        event("batch_retried", pool=self._pool, key=task.key, place=place, error=type(error).__name__)

    def given_up(self, task: Task) -> None:
        """A call that was cut short by ``gone`` and is not tried again."""
        self.retries -= 1
        event("batch_given_up", pool=self._pool, key=task.key, deaths=task.deaths)
