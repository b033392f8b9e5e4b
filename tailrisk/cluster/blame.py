"""Finding who is to blame when the workers of a pool die: suspects wait here to be tried alone. No Ray here.

``Blame`` is the rule for one task; this is its use in a pool, down to the point where the workers are at fault.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from tailrisk.cluster.journal import Journal
from tailrisk.cluster.tasks import Blame, Outcome, Task
from tailrisk.errors import ClusterError

GIVEN_UP_IN_A_ROW = 5


class Suspects:
    """The suspects of the pool ``name``, the one that has waited longest first; ``len`` of them wait."""

    def __init__(self, name: str, blame: Blame, journal: Journal) -> None:
        self._name = name
        self._blame = blame
        self._journal = journal
        self._waiting: deque[Task] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def popleft(self) -> Task:
        """The next to be tried, alone."""
        return self._waiting.popleft()

    def clear(self) -> None:
        self._waiting.clear()

    def accuse(self, tasks: Iterable[Task], how: str, *, certain: bool) -> list[Outcome]:
        """A worker ended (``how``) with ``tasks`` in flight; ``certain``: nothing else can have been running. The
        outcomes of those that are given up; the others wait here.

        Raises:
            ClusterError: tasks of many subjects in a row were given up, and none was finished in between.
        """
        outcomes: list[Outcome] = []
        for task in tasks:
            if reason := self._blame.death(task, how, certain=certain):
                if task.batches == 1:
                    self._journal.given_up(task)
                outcomes.append(Outcome(task, None, "", reason))
            else:
                self._waiting.append(task)
        if self._blame.given_up >= GIVEN_UP_IN_A_ROW:
            raise ClusterError(
                f"cluster.{self._name}: {self._blame.given_up} tasks in a row killed their workers, and none "
                f"was finished in between (last: {how}); the workers seem at fault: look at their memory"
            )
        return outcomes

    def hopeless(self, others: deque[Task]) -> list[Outcome]:
        """The outcomes of those of ``others``, and of those here, whose subject was found guilty; they wait no more."""
        outcomes: list[Outcome] = []
        if self._blame.guilty:
            for queue in (others, self._waiting):
                for task in [t for t in queue if t.subject in self._blame.guilty]:
                    queue.remove(task)
                    outcomes.append(Outcome(task, None, "", self._blame.guilty[task.subject]))
        return outcomes
