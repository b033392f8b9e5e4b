"""One worker as the driver sees it: placed, built, then given calls, of which the first runs.

A replica's actors are never restarted by Ray: a dead one is replaced by a new replica, so that what was in
flight is known and nothing runs twice behind the driver's back.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from tailrisk.cluster.group import Answers, Group, Place
from tailrisk.cluster.tasks import Task


class Stage(enum.Enum):
    PLACING = "placing"
    BUILDING = "building"
    READY = "ready"


class Call(NamedTuple):
    task: Task
    answers: Answers
    orphan: bool = False
    """Nobody waits for the answer any more, but the worker is busy with it."""


class Replica:
    """``make`` submits the worker's actors. ``calls`` are in the order of their execution."""

    def __init__(self, name: str, make: Callable[[], Group]) -> None:
        self.name = name
        self.stage = Stage.PLACING
        self.place = ""
        self.calls: list[Call] = []
        self.since = time.monotonic()
        """When the present stage began, or for a ready replica when its first call became the first."""
        self._group = make()
        self.start = self._group.ping()

    @property
    def alone(self) -> bool:
        """It runs a suspect, and must get nothing beside it."""
        return any(call.task.alone and not call.orphan for call in self.calls)

    def refs(self) -> list[Any]:
        """What has not come in."""
        if self.stage is not Stage.READY:
            return list(self.start.refs)
        return [ref for call in self.calls for ref in call.answers.refs]

    def placed(self, places: Sequence[Place]) -> None:
        self.stage, self.place, self.since = Stage.BUILDING, places[0].worker, time.monotonic()
        self.start = self._group.build(places)

    def built(self) -> None:
        self.stage, self.since = Stage.READY, time.monotonic()

    def submit(self, task: Task) -> None:
        if not self.calls:
            self.since = time.monotonic()
        self.calls.append(Call(task, self._group.call(task.method, task.args)))

    def finish(self, call: Call) -> None:
        if self.calls and self.calls[0] is call:
            self.since = time.monotonic()
        self.calls.remove(call)

    def abandon(self) -> None:
        self.calls = [call._replace(orphan=True) for call in self.calls]

    def waited(self) -> float:
        """Seconds in this stage; for a ready replica with calls, seconds its first call has been running."""
        return time.monotonic() - self.since

    def kill(self) -> None:
        """Ends the worker, whatever it is doing; safe for one that is dead."""
        self._group.kill()
