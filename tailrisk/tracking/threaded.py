"""A tracker that cannot hold up or end an audit: a thread of its own does all the talking.

The driver only puts small messages into a bounded queue. What cannot be sent is kept and tried again with
the next message, so a server that comes back gets all rounds; the first trouble is told in one line, later
ones are not. At the end there is a time limit for what is left.
"""

from __future__ import annotations

import logging
import queue
import sys
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, Self

from tailrisk.tracking.metrics import finite, flat, round_metrics
from tailrisk.tracking.tracker import NullTracker
from tailrisk.tracking.uri import masked

if TYPE_CHECKING:
    from tailrisk.audit.outcome import AuditOutcome
    from tailrisk.audit.state import AuditState
    from tailrisk.stats import Estimate

QUEUE = 1000
FLUSH_S = 30.0
FLUSH_IN_TROUBLE_S = 3.0

Ending = Literal["FINISHED", "FAILED", "KILLED"]
Warn = Callable[[str], None]

logger = logging.getLogger(__name__)


def to_stderr(line: str) -> None:
    logger.info("%s", line)  # for run.log; as a warning it would be on stderr twice without handlers
    print(f"warning: {line}", file=sys.stderr, flush=True)


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
        self._warn = warn
        self._flush_s = flush_s
        self._queue: queue.Queue[_Round | _Search | _End | None] = queue.Queue(maxsize=size)
        self._trouble = False
        self._warned = threading.Lock()
        self._done = threading.Event()
        self._totals: dict[str, float] = {}
        self._thread = threading.Thread(target=self._work, name="tailrisk-tracking", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._put(None)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        if kind is None:
            ending: Ending = "FINISHED"
        else:
            ending = "FAILED" if issubclass(kind, Exception) else "KILLED"
        self._put(_End(ending, self._totals))
        limit = min(self._flush_s, FLUSH_IN_TROUBLE_S) if self._trouble else self._flush_s
        if not self._done.wait(limit):
            self._tell(f"tracking: not everything was sent within {limit:g} s")

    def round_finished(self, state: AuditState, estimates: Sequence[Estimate]) -> None:
        self._put(_Round(state.round, round_metrics(estimates, state.tokens)))

    def finished(self, outcome: AuditOutcome) -> None:
        self._totals = finite({f"total/{key}": value for key, value in flat(outcome.totals).items()})
        if outcome.search is not None:
            self._put(_Search(outcome.search))

    def _put(self, message: Any) -> None:
        try:
            self._queue.put_nowait(message)
        except queue.Full:
            self._tell("tracking: the server is too slow, some rounds are left out")

    def _tell(self, line: str) -> None:
        """The first trouble only: one line an audit."""
        if self._warned.acquire(blocking=False):
            self._warn(
                f"{line}; the audit is not affected, its results are in the run folder, and the same command run again "
                "sends what is missing"
            )

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
                self._trouble = False
            except Exception as error:  # whatever a server or its client does must not reach the audit
                self._trouble = True
                reason = masked(" ".join(str(error).split()))
                self._tell(f"tracking: {type(error).__name__}: {reason[:160]}")
                logger.debug("tracking", exc_info=True)
        self._done.set()

    def _take(self) -> list[_Round | _Search | _End | None]:
        """All messages there are, waiting for the first: with a dead server each attempt takes seconds."""
        messages = [self._queue.get()]
        while True:
            try:
                messages.append(self._queue.get_nowait())
            except queue.Empty:
                return messages
