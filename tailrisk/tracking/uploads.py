"""Uploads that cannot hold up or end what they tell of: a thread sends the newest record, trouble costs one line."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Self

from tailrisk.tracking.trouble import FLUSH_S, Ending, Trouble, Warn, ending_of

if TYPE_CHECKING:
    from tailrisk.tracking.trainingrun import TrainingRecord


class Uploads:
    """A context manager. ``put`` a record when there is more to tell; of several that wait the last one is sent.

    ``send`` may raise, and is called again with the next record. On leaving, the last record is sent with how the
    block was left, for at most ``flush_s`` seconds.
    """

    def __init__(
        self, send: Callable[[TrainingRecord, Ending | None], None], *, warn: Warn, flush_s: float = FLUSH_S
    ) -> None:
        self._send = send
        self._trouble = Trouble(warn, "the training is not affected", flush_s)
        self._record: TrainingRecord | None = None
        self._ending: Ending | None = None
        self._fresh = threading.Condition()
        self._waiting = False
        self._thread = threading.Thread(target=self._work, name="tailrisk-uploads", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        with self._fresh:
            self._ending, self._waiting = ending_of(kind), True
            self._fresh.notify()
        limit = self._trouble.limit
        self._thread.join(limit)
        if self._thread.is_alive():
            self._trouble.tell(f"not everything was sent within {limit:g} s")

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
            self._trouble.over()
        except Exception as error:
            self._trouble.met(error)
