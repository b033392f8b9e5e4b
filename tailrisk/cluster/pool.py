"""A pool of like workers: bounded work in flight, replacement of the dead, growth and shrinking.

The pool never blocks: the owner asks for ``refs``, waits for any of them, and hands the ready ones to
``handle``, which returns outcomes; ``tend`` does what only time brings about (deadlines, new workers, idle
ones). Every task that was submitted gets exactly one outcome, unless it is abandoned.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from typing import Any

from tailrisk.audit.protocols import PoolStatus
from tailrisk.cluster.blame import Suspects
from tailrisk.cluster.group import Group, RankLostError, ready
from tailrisk.cluster.journal import Journal
from tailrisk.cluster.nodes import NodeWatch
from tailrisk.cluster.patience import Patience
from tailrisk.cluster.replica import Call, Replica, Stage
from tailrisk.cluster.sizing import Sizing, in_flight
from tailrisk.cluster.tasks import Blame, Outcome, Task, describe, lost, spoils_process
from tailrisk.config import PoolConfig
from tailrisk.errors import ClusterError, TailriskError

BUILD_TIMEOUT_S = 600.0
"""Least time limit for loading a model; a longer ``batch_timeout_s`` takes its place."""
START_DEATHS = 3


class Pool:
    """``make`` submits one worker; ``on_built`` gets what the ``build`` of each of its ranks returned; ``by_subject``
    as in ``Blame``; ``at_once``: calls that a worker runs side by side."""

    def __init__(
        self,
        name: str,
        config: PoolConfig,
        make: Callable[[], Group],
        on_built: Callable[[Any], None],
        *,
        timeout_s: float,
        retries: int,
        patience: Patience,
        nodes: NodeWatch,
        by_subject: bool = False,
        at_once: int = 1,
    ) -> None:
        self.name = name
        self.journal = Journal(name)
        self.preempted = 0
        """Workers that were lost, or moved in time, because their node was told to end."""
        self._config = config
        self._make = make
        self._on_built = on_built
        self._timeout_s = timeout_s
        self._patience = patience
        self._nodes = nodes
        self._in_flight = in_flight(at_once)
        self._sizing = Sizing(config, held=self._in_flight)
        self._blame = Blame(retries, by_subject=by_subject)
        self._waiting: deque[Task] = deque()
        self._suspects = Suspects(name, self._blame, self.journal)
        self._replicas: list[Replica] = []
        self._made = 0
        self._start_deaths: set[str] = set()

    @property
    def most(self) -> int:
        """Workers at most."""
        return self._config.max

    @property
    def backlog(self) -> int:
        """Tasks that no worker has been given yet."""
        return len(self._waiting) + len(self._suspects)

    @property
    def hungry(self) -> bool:
        """More tasks would be of use: every possible worker's calls, and one beyond to ask for growth."""
        return self.backlog + sum(len(r.calls) for r in self._replicas) <= self._in_flight * self._config.max

    @property
    def ready(self) -> bool:
        """A worker can be given work, or none is to be there before there is any."""
        return not self._config.min or any(r.stage is Stage.READY for r in self._replicas)

    def status(self) -> PoolStatus:
        stages = Counter(r.stage for r in self._replicas)
        return PoolStatus(
            self.name,
            placing=stages[Stage.PLACING],
            building=stages[Stage.BUILDING],
            ready=stages[Stage.READY],
            waiting=sum(t.batches for t in self._waiting) + len(self._suspects),
            running=sum(c.task.batches for r in self._replicas for c in r.calls if not c.orphan),
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
        """Lost nodes, deadlines, replacement, growth, shrinking; then idle hands get work."""
        self._see_nodes()
        outcomes = [o for replica in list(self._replicas) for o in self._deadline(replica)]
        outcomes += self._suspects.hopeless(self._waiting)
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
            if not self._taken(replica, error):
                self._start_deaths.add(lost(error.__cause__ or error, replica.name))
            if len(self._start_deaths) >= START_DEATHS:
                raise ClusterError(
                    f"cluster.{self.name}: {len(self._start_deaths)} workers in a row died while they were being "
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
        self._start_deaths.clear()

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
        if self._taken(replica, error):
            self._waiting.extendleft(reversed(tasks))
            return outcomes
        how = "the worker process ended" if error.__cause__ else str(error)
        return outcomes + self._suspects.accuse(tasks, how, certain=len(calls) == 1)

    def _deadline(self, replica: Replica) -> list[Outcome]:
        waited = replica.waited()
        if replica.stage is Stage.PLACING:  # that is a matter of the pool: ``_resize``
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
        return self._suspects.accuse([] if hung.orphan else [hung.task], how, certain=True)

    def _drop(self, replica: Replica) -> None:
        self.journal.gone(replica)
        replica.kill()
        replica.calls = []
        self._replicas.remove(replica)

    def _see_nodes(self) -> None:
        """Workers on a node that was told to end get nothing new, and go when they are done with what they have;
        in their place others are asked for. One that is lost while it has nothing to do says so nowhere else."""
        self._nodes.look()
        for replica in list(self._replicas):
            if replica.stage is not Stage.PLACING and not replica.node:
                replica.locate()
            replica.leaving = replica.leaving or self._nodes.leaves(replica.node)
            if replica.calls or not (replica.leaving or self._nodes.dead(replica.node)):
                continue
            if replica.leaving or replica.stage is Stage.READY:
                self.preempted += replica.leaving
                self._drop(replica)

    def _taken(self, replica: Replica, error: RankLostError) -> bool:
        """Whether the worker died because its node was told to end: that is nobody's fault."""
        taken = replica.leaving or error.preempted
        self.preempted += taken
        return taken

    def _resize(self) -> None:
        staying = [r for r in self._replicas if not r.leaving]
        tasks = self.backlog + sum(len(r.calls) for r in staying)
        for _ in range(self._sizing.short(tasks, len(staying))):
            self._add()
        for replica in self._sizing.surplus(tasks, staying):
            self._drop(replica)
        # Beside others one may pend: on a cluster that scales, a waiting worker brings the next node.
        pending = sum(r.pending for r in self._replicas)
        self._patience.check(placed=len(self._replicas) - pending, pending=pending)

    def _add(self) -> None:
        self._made += 1
        self._replicas.append(Replica(f"{self.name}-{self._made}", self._make))
        self.journal.asked(self._replicas[-1])

    def _assign(self) -> None:
        open_ = sorted(
            (r for r in self._replicas if r.stage is Stage.READY and not (r.alone or r.leaving)),
            key=lambda r: len(r.calls),
        )
        while self._suspects and open_:
            # Kept free of new work until it is empty, then the suspect has it to itself.
            replica = open_.pop(0)
            if replica.calls:
                break
            replica.submit(self._suspects.popleft())
        while self._waiting and open_:
            replica = min(open_, key=lambda r: len(r.calls))
            if len(replica.calls) >= self._in_flight:
                break
            replica.submit(self._waiting.popleft())
