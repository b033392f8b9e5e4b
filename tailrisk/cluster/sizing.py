"""How many workers a pool should have: by its work, within its bounds. No Ray here.

A worker that is asked for pends until there is room, and a pending worker is what a cluster's autoscaler sees: so
all that the work can use are asked for at once. Nodes cost money from the moment they are asked for, so a need must
last a moment first, and what is not needed any more is called off or let go.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from tailrisk.config import PoolConfig

GROW_AFTER_S = 1.0
CALL_OFF_AFTER_S = 15.0


def in_flight(at_once: int = 1) -> int:
    """Calls a worker holds that runs so many side by side: one beyond hides the way back and forth of the others."""
    return at_once + 1


class Worker(Protocol):
    """``pending``: it has no node yet. ``idle_s``: seconds without work; None: it has work, or is not ready."""

    @property
    def pending(self) -> bool: ...

    @property
    def idle_s(self) -> float | None: ...

    @property
    def node(self) -> str: ...


W = TypeVar("W", bound=Worker)


class Sizing:
    """The rule of one pool, and since when it has had too few or too many workers. ``held``: calls that keep a worker
    busy."""

    def __init__(
        self, pool: PoolConfig, clock: Callable[[], float] = time.monotonic, *, held: int | None = None
    ) -> None:
        self._pool = pool
        self._held = held or in_flight()
        self._clock = clock
        self._short_since: float | None = None
        self._excess_since: float | None = None

    def wanted(self, tasks: int) -> int:
        """Workers that ``tasks`` (waiting or in flight) can keep busy."""
        return max(self._pool.min, min(self._pool.max, -(-tasks // self._held)))

    def short(self, tasks: int, have: int) -> int:
        """Workers to ask for now; those of ``min`` at once, others when they have been wanted for a moment."""
        lack = self.wanted(tasks) - have
        if lack <= 0:
            self._short_since = None
            return 0
        now = self._clock()
        if self._short_since is None:
            self._short_since = now
        return lack if now - self._short_since >= GROW_AFTER_S else max(0, self._pool.min - have)

    def surplus(self, tasks: int, workers: Sequence[W]) -> list[W]:
        """Workers to call off (they have no node yet) or to let go (nothing to do for ``idle_s``).

        Of idle ones those go first that have the fewest others beside them: a node is given back when it is empty.
        """
        excess = len(workers) - self.wanted(tasks)
        if excess <= 0:
            self._excess_since = None
            return []
        now = self._clock()
        if self._excess_since is None:
            self._excess_since = now
        called_off = now - self._excess_since >= CALL_OFF_AFTER_S
        pending = [w for w in reversed(workers) if w.pending] if called_off else []
        beside = Counter(w.node for w in workers)
        idle = [w for w in workers if w.idle_s is not None and w.idle_s > self._pool.idle_s]
        return [*pending, *sorted(idle, key=lambda w: beside[w.node])][:excess]
