"""Answers on their way to the workers of a judge and back, those of several batches together where judging is quick."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, NamedTuple, TypeVar

from tailrisk.cluster.parcels import Pace, unpack_judged
from tailrisk.cluster.pool import Pool
from tailrisk.cluster.tasks import Outcome, Task
from tailrisk.records import JudgedTexts

T = TypeVar("T")


class Answers(NamedTuple, Generic[T]):
    """Answers to one prompt, and whose they are; ``key`` names them in messages."""

    owner: T
    key: str
    prompt_id: str
    texts: Sequence[str]


class JudgeLine(Generic[T]):
    """``len`` calls of ``pool`` are on their way."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._pace = Pace()
        self._on_way: dict[Task, list[Answers[T]]] = {}

    def __len__(self) -> int:
        return len(self._on_way)

    @property
    def together(self) -> int:
        """How many batches' answers may go in the next call."""
        return self._pace.together

    @property
    def hungry(self) -> bool:
        """Whether another call would be of use. Of quick calls one for each worker is enough: what comes meanwhile
        goes together."""
        return len(self._on_way) < self._pool.most if self.together > 1 else self._pool.hungry

    def send(self, some: Sequence[Answers[T]]) -> None:
        """In one call."""
        first = some[0]
        texts = [(one.prompt_id, list(one.texts)) for one in some]
        task = Task(first.key, "judge_all", (texts,), first.prompt_id, batches=len(some))
        self._on_way[task] = list(some)
        self._pool.submit(task)

    def take(self, outcome: Outcome) -> list[tuple[T, JudgedTexts]] | None:
        """The verdicts that came; undetermined, with the reason, where the workers died of them. Where they died of
        several together, each is tried by itself. None for an outcome that is not of this line."""
        some = self._on_way.pop(outcome.task, None)
        if some is None:
            return None
        if not outcome.reason:
            judged, seconds = unpack_judged(outcome.value)
            self._pace.saw(len(some), seconds)
            return [(one.owner, verdicts) for one, verdicts in zip(some, judged, strict=True)]
        self._pace.failed()
        if len(some) == 1:
            unjudged = JudgedTexts.unjudged(len(some[0].texts), f"judging {outcome.reason}")
            return [(some[0].owner, unjudged)]
        for one in some:
            self.send([one])
        return []

    def forget(self) -> None:
        """What is on its way is of no use any more; the pool is told by its owner."""
        self._on_way.clear()
