"""One worker as the driver sees it: placed, built, then given calls, of which the first runs.

A replica's actor is never restarted by Ray: a dead one is replaced by a new replica, so that what was in
flight is known and nothing runs twice behind the driver's back.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from tailrisk.cluster.nodes import node_of
from tailrisk.cluster.tasks import Task


class Stage(enum.Enum):
    PLACING = "placing"
    BUILDING = "building"
    READY = "ready"


class Call(NamedTuple):
    task: Task
    ref: Any
    orphan: bool = False
    """Nobody waits for the answer any more, but the worker is busy with it."""


class Replica:
    """``make`` submits the actor and returns its handle. ``calls`` are in the order of their execution."""

    def __init__(self, name: str, make: Callable[[], Any]) -> None:
        self.name = name
        self.stage = Stage.PLACING
        self.place = ""
        self.node = ""
        """Ray's id of its node, once it has one and was asked for it."""
        self.leaving = False
        """Its node was told to end: nothing new is given to it."""
        self.calls: list[Call] = []
        self.since = time.monotonic()
        """When the present stage began, or for a ready replica when its first call became the first."""
        self.handle = make()
        self.start_ref: Any = self.handle.ping.remote()

    @property
    def pending(self) -> bool:
        """It waits for a node that has room."""
        return self.stage is Stage.PLACING

    @property
    def idle_s(self) -> float | None:
        """Seconds without work; None for one that has work or is not ready."""
        return self.waited() if self.stage is Stage.READY and not self.calls else None

    @property
    def alone(self) -> bool:
        """It runs a suspect, and must get nothing beside it."""
        return any(call.task.alone and not call.orphan for call in self.calls)

    def refs(self) -> list[Any]:
        return [self.start_ref] if self.stage is not Stage.READY else [call.ref for call in self.calls]

    def placed(self, place: str) -> None:
        self.stage, self.place, self.since = Stage.BUILDING, place, time.monotonic()
        self.start_ref = self.handle.build.remote()

    def built(self) -> None:
        self.stage, self.since, self.start_ref = Stage.READY, time.monotonic(), None

    def submit(self, task: Task) -> None:
        if not self.calls:
            self.since = time.monotonic()
        self.calls.append(Call(task, getattr(self.handle, task.method).remote(*task.args)))

    def finish(self, call: Call) -> None:
        if self.calls and self.calls[0] is call:
            self.since = time.monotonic()
        self.calls.remove(call)

    def abandon(self) -> None:
        self.calls = [call._replace(orphan=True) for call in self.calls]

    def waited(self) -> float:
        """Seconds in this stage; for a ready replica with calls, seconds its first call has been running."""
        return time.monotonic() - self.since

    def locate(self) -> None:
        self.node = node_of(self.handle)

    def kill(self) -> None:
        """Ends the actor, whatever it is doing; safe for one that is dead."""
        import ray

        ray.kill(self.handle, no_restart=True)
