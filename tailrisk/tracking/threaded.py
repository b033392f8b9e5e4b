"""A tracker that cannot hold up or end an audit: a thread of its own does all the talking.

The driver only puts small messages into a bounded queue. What cannot be sent is kept and tried again with
the next message, so a server that comes back gets all rounds; the first trouble is told in one line, later
ones are not. At the end there is a time limit for what is left.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self

from tailrisk.tracking.metrics import finite, flat, round_metrics
from tailrisk.tracking.tracker import NullTracker
from tailrisk.tracking.trouble import FLUSH_S, Ending, Trouble, Warn, ending_of, to_stderr

if TYPE_CHECKING:
    from tailrisk.audit.outcome import AuditOutcome
    from tailrisk.audit.state import AuditState
    from tailrisk.stats import Estimate

QUEUE = 1000


class Backend(Protocol):
    """The talking side; called from one thread only, any call may raise and may be repeated."""

    def begin(self) -> None:
        """Make or find the run; does nothing when that is done."""
        ...

    def log_rounds(self, rounds: dict[int, dict[str, float]]) -> None:
        """Metrics by round index; rounds that are there already are left out."""
        ...

    def log_search(self, record: dict[str, Any]) -> None:
        """What a search of components found, as a child run, once."""
        ...

    def end(self, ending: Ending, totals: dict[str, float]) -> None:
        """Final figures, artifacts, and the run's status."""
        ...


class _Round(NamedTuple):
    index: int
    metrics: dict[str, float]


class _Search(NamedTuple):
    record: dict[str, Any]


class _End(NamedTuple):
    ending: Ending
    totals: dict[str, float]


class ThreadedTracker(NullTracker):
    def __init__(
        self, backend: Backend, *, warn: Warn = to_stderr, size: int = QUEUE, flush_s: float = FLUSH_S
    ) -> None:
        self._backend = backend
        assurance = "the audit is not affected, its results are in the run folder"
        self._trouble = Trouble(warn, assurance, flush_s)
        self._queue: queue.Queue[_Round | _Search | _End | None] = queue.Queue(maxsize=size)
        self._done = threading.Event()
        self._totals: dict[str, float] = {}
        self._thread = threading.Thread(target=self._work, name="tailrisk-tracking", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._put(None)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        self._put(_End(ending_of(kind), self._totals))
        limit = self._trouble.limit
        if not self._done.wait(limit):
            self._trouble.tell(f"not everything was sent within {limit:g} s")

    def round_finished(self, state: AuditState, estimates: Sequence[Estimate]) -> None:
        self._put(_Round(state.round, round_metrics(estimates, state.tokens, state.judge_calls)))

    def finished(self, outcome: AuditOutcome) -> None:
        self._totals = finite({f"total/{key}": value for key, value in flat(outcome.totals).items()})
        if outcome.search is not None:
            self._put(_Search(outcome.search))

    def _put(self, message: Any) -> None:
        try:
            self._queue.put_nowait(message)
        except queue.Full:
            self._trouble.tell("the server is too slow, some rounds are left out")

    def _work(self) -> None:
        rounds: dict[int, dict[str, float]] = {}
        search: _Search | None = None
        end: _End | None = None
        while end is None:
            for message in self._take():
                if isinstance(message, _Round):
                    rounds[message.index] = message.metrics
                elif isinstance(message, _Search):
                    search = message
                elif isinstance(message, _End):
                    end = message
            try:
                self._backend.begin()
                if rounds:
                    self._backend.log_rounds(rounds)
                    rounds = {}
                if search is not None:
                    self._backend.log_search(search.record)
                    search = None
                if end is not None:
                    self._backend.end(end.ending, end.totals)
                self._trouble.over()
            except Exception as error:
                self._trouble.met(error)
        self._done.set()

    def _take(self) -> list[_Round | _Search | _End | None]:
        """All messages there are, waiting for the first: with a dead server each attempt takes seconds."""
        messages = [self._queue.get()]
        while True:
            try:
                messages.append(self._queue.get_nowait())
            except queue.Empty:
                return messages
