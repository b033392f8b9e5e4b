"""What is asked of workers, what comes back, and who is to blame when a worker dies. No Ray here.

A worker runs its calls one after the other but more than one is in flight, so a death leaves several
suspects. Each is then tried *alone*; only deaths in which a task was alone count against it, and after
``retries`` of them it is given up. So a batch that kills its worker is found, and an innocent one that was
in flight beside it is not failed. Dask's ``allowed-failures`` and ``KilledWorker`` are the model. Tasks of one
``subject`` share the verdict: a worker may take minutes to load, and a prompt that ends it has many batches.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, NamedTuple

from tailrisk.errors import TailriskError

MAX_REASON = 500


@dataclass(eq=False, slots=True)
class Task:
    """One call of a worker's ``method``; ``key`` names it in messages, ``subject`` is what it is about (its prompt).
    A retry is the same call. One for several ``batches`` is not tried again as it is: its owner tries each by itself.
    """

    key: str
    method: str
    args: tuple[Any, ...]
    subject: str = ""
    batches: int = 1
    alone: bool = False
    deaths: int = 0
    deaths_alone: int = 0
    raised: int = 0


class Outcome(NamedTuple):
    """``reason`` is '' and ``value`` the answer, or ``reason`` says why the task was given up."""

    task: Task
    value: Any
    worker: str
    reason: str


class Blame:
    """The rule that says whether a task is tried again (None) or given up (the reason).

    ``given_up`` counts subjects with tasks given up since the last answer: many in a row are not their fault.
    ``by_subject``: a subject is given up with the first of its tasks.
    """

    def __init__(self, retries: int, *, by_subject: bool = False) -> None:
        self._limit = max(1, retries)
        self._by_subject = by_subject
        self._since: set[str] = set()
        self.guilty: dict[str, str] = {}
        """Subject -> why its tasks are not tried any more."""

    @property
    def given_up(self) -> int:
        return len(self._since)

    def answered(self) -> None:
        self._since.clear()

    def death(self, task: Task, how: str, *, certain: bool) -> str | None:
        """A worker ended while ``task`` was in flight; ``certain``: nothing else can have been running."""
        task.deaths += 1
        if task.batches > 1:
            return how
        if certain or task.alone:
            task.deaths_alone += 1
        task.alone = True
        if task.deaths_alone < self._limit:
            return None
        self._since.add(task.subject or task.key)
        times = "once" if task.deaths == 1 else f"{task.deaths} times"
        if self._by_subject and task.subject:
            self.guilty[task.subject] = f"not tried: batch {task.key} killed its worker {times} ({how})"
        return f"killed its worker {times} ({how})"

    def raised(self, task: Task, error: BaseException) -> str | None:
        """The worker's code raised. Errors of ours are about the data and would come again; others get one
        more try."""
        task.raised += 1
        if isinstance(error, TailriskError) or task.raised > 1 or task.batches > 1:
            return describe(error)
        return None


def lost(error: BaseException, worker: str) -> str:
    """What went with a worker's death: its node, by Ray's id, or only ``worker``. Many workers can go with a node."""
    node = re.search(r"its node has died\. Node Id: (\w+)", str(error))
    return f"node {node[1]}" if node else worker


def describe(error: BaseException) -> str:
    """One line for the log: the message of an error of ours, type and message of any other."""
    message = " ".join(str(error).split())
    if not isinstance(error, TailriskError):
        name = type(error).__name__
        message = f"{name}: {message}" if message else name
    return message if len(message) <= MAX_REASON else message[: MAX_REASON - 1] + "…"


def spoils_process(error: BaseException) -> bool:
    """True for errors after which every later call in the same process fails too (a CUDA device assert)."""
    return "CUDA error" in str(error) or type(error).__name__ == "AcceleratorError"
