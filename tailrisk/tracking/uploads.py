"""Uploads that cannot hold up or end what they tell of: a thread sends the newest record, trouble costs one line."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Self

from tailrisk.tracking.threaded import FLUSH_IN_TROUBLE_S, FLUSH_S, Warn
from tailrisk.tracking.uri import masked

if TYPE_CHECKING:
    from tailrisk.tracking.threaded import Ending
    from tailrisk.tracking.trainingrun import TrainingRecord

logger = logging.getLogger(__name__)


class Uploads:
    """A context manager. ``put`` a record when there is more to tell; of several that wait the last one is sent.

    ``send`` may raise, and is called again with the next record. On leaving, the last record is sent with how the
    block was left, for at most ``flush_s`` seconds.
    """

    def __init__(
        self, send: Callable[[TrainingRecord, Ending | None], None], *, warn: Warn, flush_s: float = FLUSH_S
    ) -> None:
        self._send = send
        self._warn = warn
        self._flush_s = flush_s
        self._record: TrainingRecord | None = None
        self._ending: Ending | None = None
        self._fresh = threading.Condition()
        self._waiting = False
        self._trouble = False
        self._warned = False
        self._thread = threading.Thread(target=self._work, name="tailrisk-uploads", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        if kind is None:
            ending: Ending = "FINISHED"
        else:
            ending = "FAILED" if issubclass(kind, Exception) else "KILLED"
        with self._fresh:
            self._ending, self._waiting = ending, True
            self._fresh.notify()
        limit = min(self._flush_s, FLUSH_IN_TROUBLE_S) if self._trouble else self._flush_s
        self._thread.join(limit)
        if self._thread.is_alive():
            self._tell(f"not everything was sent within {limit:g} s")

    def put(self, record: TrainingRecord) -> None:
        with self._fresh:
            self._record, self._waiting = record, True
            self._fresh.notify()

    def _work(self) -> None:
        while True:
            with self._fresh:
                while not self._waiting:
                    self._fresh.wait()
                record, ending, self._waiting = self._record, self._ending, False
            if record is not None:
                self._try(record, ending)
            if ending is not None:
                return

    def _try(self, record: TrainingRecord, ending: Ending | None) -> None:
        try:
            self._send(record, ending)
            self._trouble = False
        except Exception as error:  # whatever a server or its client does must not reach the training
            self._trouble = True
            reason = masked(" ".join(str(error).split()))
            self._tell(f"{type(error).__name__}: {reason[:160]}")
            logger.debug("tracking", exc_info=True)

    def _tell(self, reason: str) -> None:
        """The first trouble only."""
        if not self._warned:
            self._warned = True
            self._warn(
                f"tracking: {reason}; the training is not affected, and the same command run again sends what is "
                "missing"
            )
