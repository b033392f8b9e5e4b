"""A pool of like workers: bounded work in flight, replacement of the dead, blame, growth and shrinking.

The pool never blocks: the owner asks for ``refs``, waits for any of them, and hands the ready ones to
``handle``, which returns outcomes; ``tend`` does what only time brings about (deadlines, new workers, idle
ones). Every task that was submitted gets exactly one outcome, unless it is abandoned.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

from tailrisk.audit.protocols import PoolStatus
from tailrisk.cluster import resources
from tailrisk.cluster.group import Group, RankLostError, ready
from tailrisk.cluster.journal import Journal
from tailrisk.cluster.replica import Call, Replica, Stage
from tailrisk.cluster.tasks import Blame, Outcome, Task, describe, spoils_process
from tailrisk.config import PoolConfig
from tailrisk.errors import ClusterError, TailriskError

IN_FLIGHT = 2
"""Calls a worker holds at once: the second hides the way back and forth of the first."""
IDLE_S = 60.0
"""A worker above ``min`` that had nothing to do for so long is let go."""
BUILD_TIMEOUT_S = 600.0
"""Least time limit for loading a model; a longer ``batch_timeout_s`` takes its place."""
START_DEATHS = 3
GIVEN_UP_IN_A_ROW = 5


class Pool:
    """``make`` submits one worker; ``on_built`` gets what the ``build`` of each of its ranks returned."""

    def __init__(
        self,
        name: str,
        config: PoolConfig,
        make: Callable[[], Group],
        on_built: Callable[[Any], None],
        *,
        timeout_s: float,
        retries: int,
    ) -> None:
        self.name = name
        self.journal = Journal(name)
        self.preempted = 0
        """Workers that were lost because their node was told to end."""
        self._config = config
        self._make = make
        self._on_built = on_built
        self._timeout_s = timeout_s
        self._blame = Blame(retries)
        self._waiting: deque[Task] = deque()
        self._suspects: deque[Task] = deque()
        self._replicas: list[Replica] = []
        self._made = 0
        self._start_deaths = 0

    @property
    def backlog(self) -> int:
        """Tasks that no worker has been given yet."""
        return len(self._waiting) + len(self._suspects)

    @property
    def hungry(self) -> bool:
        """More tasks would be of use: every possible worker's calls, and one beyond to ask for growth."""
        return self.backlog + sum(len(r.calls) for r in self._replicas) <= IN_FLIGHT * self._config.max

    @property
    def ready(self) -> bool:
        return any(r.stage is Stage.READY for r in self._replicas)

    def status(self) -> PoolStatus:
        stages = Counter(r.stage for r in self._replicas)
        return PoolStatus(
            self.name,
            placing=stages[Stage.PLACING],
            building=stages[Stage.BUILDING],
            ready=stages[Stage.READY],
            waiting=self.backlog,
            running=sum(not call.orphan for r in self._replicas for call in r.calls),
            retries=self.journal.retries,
            preemptions=self.preempted,
        )

    def submit(self, task: Task) -> None:
        self._waiting.append(task)

    def refs(self) -> list[Any]:
        return [ref for replica in self._replicas for ref in replica.refs()]

    def abandon(self) -> None:
        """Forget all tasks; workers finish what they are at, and the answers are dropped."""
        self._waiting.clear()
        self._suspects.clear()
        for replica in self._replicas:
            replica.abandon()

    def close(self) -> None:
        self.abandon()
        for replica in self._replicas:
            replica.kill()
        self._replicas.clear()

    def handle(self, done: set[Any]) -> list[Outcome]:
        """Take in the finished references among ``done``.

        Raises:
            TailriskError: a worker could not load what it needs (the error it raised), or workers keep dying.
        """
        outcomes: list[Outcome] = []
        for replica in list(self._replicas):
            if replica.stage is not Stage.READY:
                replica.start.take(done)
                if replica.start.settled:
                    self._started(replica)
                continue
            for call in list(replica.calls):
                call.answers.take(done)
                if call.answers.settled and call in replica.calls:
                    outcomes += self._answered(replica, call)
        return outcomes

    def tend(self) -> list[Outcome]:
        """Deadlines, replacement, growth, shrinking; then idle hands get work."""
        outcomes = [o for replica in list(self._replicas) for o in self._deadline(replica)]
        self._resize()
        self._assign()
        return outcomes

    def _started(self, replica: Replica) -> None:
        from ray.exceptions import RayTaskError

        try:
            values = replica.start.value()
        except RayTaskError as error:
            cause = error.cause
            if isinstance(cause, TailriskError):
                raise cause from None
            raise ClusterError(
                f"cluster.{self.name}: a worker could not be made ready ({describe(cause)})"
            ) from error
        except RankLostError as error:
            self._drop(replica)
            if getattr(error.__cause__, "actor_init_failed", False):
                raise ClusterError(
                    f"cluster.{self.name}: a worker could not be made ready ({error}); "
                    "is the same Python environment installed on every node?"
                ) from error
            self.preempted += error.preempted
            self._start_deaths += 0 if error.preempted else 1
            if self._start_deaths >= START_DEATHS:
                raise ClusterError(
                    f"cluster.{self.name}: {self._start_deaths} workers in a row died while they were being "
                    f"made ready ({error}); is there memory enough for the model? Try "
                    "fewer workers or another dtype"
                ) from error
            return
        if replica.stage is Stage.PLACING:
            replica.placed(values)
            return
        for value in values:
            self._on_built(value)
        replica.built()
        self.journal.ready(replica)
        self._start_deaths = 0

    def _answered(self, replica: Replica, call: Call) -> list[Outcome]:
        from ray.exceptions import RayTaskError

        try:
            value = call.answers.value()[0]
        except RayTaskError as error:
            replica.finish(call)
            return self._raised(replica, call, error.cause)
        except RankLostError as error:
            return self._died(replica, error)
        replica.finish(call)
        self._blame.answered()
        return [] if call.orphan else [Outcome(call.task, value, replica.place, "")]

    def _raised(self, replica: Replica, call: Call, error: BaseException) -> list[Outcome]:
        if isinstance(error, ClusterError):
            raise error  # the worker itself says that it is at fault, not the task
        if spoils_process(error):
            self._waiting.extendleft(c.task for c in reversed(replica.calls) if not c.orphan)
            self._drop(replica)
        if call.orphan:
            return []
        if reason := self._blame.raised(call.task, error):
            return [Outcome(call.task, None, replica.place, reason)]
        self.journal.raised(call.task, replica.place, error)
        self._waiting.append(call.task)
        return []

    def _died(self, replica: Replica, error: RankLostError) -> list[Outcome]:
        """The worker ended by itself: answers that were on their way count, the rest is suspect."""
        outcomes: list[Outcome] = []
        for call in list(replica.calls):
            try:
                call.answers.take(ready(call.answers.refs))
                value = call.answers.value()[0]
            except Exception:
                continue
            replica.finish(call)
            if not call.orphan:
                outcomes.append(Outcome(call.task, value, replica.place, ""))
        calls = list(replica.calls)
        self._drop(replica)
        tasks = [c.task for c in calls if not c.orphan]
        if error.preempted:
            self.preempted += 1
            self._waiting.extendleft(reversed(tasks))
            return outcomes
        how = "the worker process ended" if error.__cause__ else str(error)
        return outcomes + self._suspect(tasks, how, certain=len(calls) == 1)

    def _deadline(self, replica: Replica) -> list[Outcome]:
        waited = replica.waited()
        if replica.stage is Stage.PLACING:
            # Beside others one may pend: on a cluster that scales, a waiting worker brings the next node.
            alone = all(r.stage is Stage.PLACING for r in self._replicas)
            if waited > resources.PLACE_TIMEOUT_S and alone:
                raise resources.no_room(self.name, self._config, waited)
            return []
        if replica.stage is Stage.BUILDING:
            limit = max(self._timeout_s, BUILD_TIMEOUT_S)
            if waited > limit:
                raise ClusterError(
                    f"cluster.{self.name}: a worker on {replica.place} was not ready after {limit:.0f} s of "
                    "loading; if the model is that slow to load, raise cluster.batch_timeout_s"
                )
            return []
        if not replica.calls or waited <= self._timeout_s:
            return []
        hung, *rest = replica.calls
        self._drop(replica)
        self._waiting.extendleft(c.task for c in reversed(rest) if not c.orphan)
        how = f"not done after {self._timeout_s:g} s, cluster.batch_timeout_s"
        return self._suspect([] if hung.orphan else [hung.task], how, certain=True)

    def _suspect(self, tasks: list[Task], how: str, *, certain: bool) -> list[Outcome]:
        outcomes: list[Outcome] = []
        for task in tasks:
            if reason := self._blame.death(task, how, certain=certain):
                self.journal.given_up(task)
                outcomes.append(Outcome(task, None, "", reason))
            else:
                self._suspects.append(task)
        if self._blame.given_up >= GIVEN_UP_IN_A_ROW:
            raise ClusterError(
                f"cluster.{self.name}: {self._blame.given_up} tasks in a row killed their workers, and none "
                f"was finished in between (last: {how}); the workers seem at fault: look at their memory"
            )
        return outcomes

    def _drop(self, replica: Replica) -> None:
        self.journal.gone(replica)
        replica.kill()
        replica.calls = []
        self._replicas.remove(replica)

    def _resize(self) -> None:
        while len(self._replicas) < self._config.min:
            self._add()
        idle = [r for r in self._replicas if r.stage is Stage.READY and not r.calls]
        starting = any(r.stage is not Stage.READY for r in self._replicas)
        if self.backlog and not idle and not starting and len(self._replicas) < self._config.max:
            self._add()
        if not self.backlog:
            for replica in [r for r in idle if r.waited() > IDLE_S][: len(self._replicas) - self._config.min]:
                self._drop(replica)

    def _add(self) -> None:
        self._made += 1
        self._replicas.append(Replica(f"{self.name}-{self._made}", self._make))
        self.journal.asked(self._replicas[-1])

    def _assign(self) -> None:
        open_ = sorted(
            (r for r in self._replicas if r.stage is Stage.READY and not r.alone), key=lambda r: len(r.calls)
        )
        while self._suspects and open_:
            # Kept free of new work until it is empty, then the suspect has it to itself.
            replica = open_.pop(0)
            if replica.calls:
                break
            replica.submit(self._suspects.popleft())
        while self._waiting and open_:
            replica = min(open_, key=lambda r: len(r.calls))
            if len(replica.calls) >= IN_FLIGHT:
                break
            replica.submit(self._waiting.popleft())


def wait(pools: list[Pool], timeout_s: float) -> set[Any]:
    """The references of the pools that are finished; waits for the first at most ``timeout_s`` seconds."""
    import ray

    refs = [ref for pool in pools for ref in pool.refs()]
    if not refs:
        time.sleep(min(timeout_s, 0.05))
        return set()
    ray.wait(refs, num_returns=1, timeout=timeout_s)
    return ready(refs)
