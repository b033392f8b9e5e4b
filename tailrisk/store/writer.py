"""Writing the log of a run, see ``tailrisk.store.log``: one writer at a time, and what is written stays.

Records of drawn batches are synced ``SYNC_S`` after the first of them at the latest, several at once where they come
fast: a sync costs more than the rest of a record. A killed writer loses none of them, for the system has them; a
machine that fails loses those of a tenth of a second, which a resume draws again from the same seeds. What follows in
the log is synced with all that is before it, so that no plan ever rests on a batch that is not there.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from tailrisk.errors import StoreError
from tailrisk.store.atomic import sync_folder, write_failed
from tailrisk.store.log import FOOTER, Segment, encode_line, segments

SEGMENT_BYTES = 64 * 2**20
SYNC_S = 0.1


class LogWriter:
    """Appends records; opening it reads the whole log once, handing each record to ``visit``, and cuts a
    torn tail (``cut``: its bytes). The caller holds the run's lock.

    After any failed write the log refuses further records, so that no later record can follow a hole;
    opening it anew continues from the last record that is whole.
    """

    def __init__(
        self,
        folder: Path,
        visit: Callable[[str, dict[str, Any]], None] | None = None,
        *,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> None:
        self._folder = folder / "log"
        self._limit = segment_bytes
        self._broken: str | None = None
        self._untold: StoreError | None = None
        self._fd = -1
        self._synced = 0
        self._lock = threading.RLock()
        self._later: threading.Timer | None = None
        self.cut = 0
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            sync_folder(folder)
        except OSError as error:
            raise write_failed(self._folder, error) from error
        paths = segments(self._folder)
        for path in paths:
            self._segment = Segment(path, last=path == paths[-1])
            for kind, payload in self._segment:
                if visit is not None:
                    visit(kind, payload)
        try:
            if not paths or self._segment.closed:
                self._create(len(paths))
            else:
                self._continue()
        except OSError as error:
            self.close()
            raise write_failed(self._folder, error) from error

    def append(self, kind: str, payload: dict[str, Any] | str, *, soon: bool = False) -> None:
        """Writes one record and syncs it; when this returns, the record survives a crash. ``soon``: of the machine
        only after ``SYNC_S``, or with the next record that is not ``soon``."""
        with self._lock:
            if self._fd < 0:
                raise self._closed()
            line = encode_line(kind, payload)
            if self._segment.size >= self._limit:
                self._roll()
            self._write(line)
            self._segment.sha.update(line)
            self._segment.records += 1
            if not soon:
                self._sync()
            elif self._later is None:
                self._later = threading.Timer(SYNC_S, self._sync_late)
                self._later.daemon = True
                self._later.start()

    def sync(self) -> None:
        """When this returns, every record survives a crash. ``StoreError`` where one may not."""
        with self._lock:
            if self._fd < 0:
                raise self._closed()
            self._sync()

    def close(self) -> None:
        """Syncs what is not synced, without a word where that fails: ``sync`` says it."""
        with self._lock:
            if self._fd >= 0:
                with suppress(StoreError):
                    self._sync()
            self._let_go()

    def _closed(self) -> StoreError:
        return StoreError(f"{self._segment.path}: no more records are taken ({self._broken or 'closed'})")

    def _let_go(self) -> None:
        if self._later is not None:
            self._later.cancel()
            self._later = None
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _sync_late(self) -> None:
        with self._lock:
            self._later = None
            if self._fd >= 0:
                try:
                    self._sync()
                except StoreError as error:
                    self._untold = error

    def _roll(self) -> None:
        self._write(encode_line(FOOTER, self._segment.footer()))
        self._sync()
        number = int(self._segment.path.stem) + 1
        os.close(self._fd)
        self._fd = -1
        try:
            self._create(number)
        except OSError as error:
            self._broken = f"an earlier write failed: {error}"
            raise write_failed(self._folder, error) from error

    def _create(self, number: int) -> None:
        path = self._folder / f"{number:05d}.jsonl"
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self._segment = Segment(path, last=True)
        self._synced = 0
        sync_folder(self._folder)

    def _continue(self) -> None:
        path = self._segment.path
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND)
        self._synced = self._segment.size
        self.cut = os.fstat(self._fd).st_size - self._segment.size
        if self.cut:
            os.ftruncate(self._fd, self._segment.size)
            os.fsync(self._fd)

    def _write(self, line: bytes) -> None:
        try:
            view = memoryview(line)
            while view:
                view = view[os.write(self._fd, view) :]
        except BaseException as error:
            # The record may be there in part: without it the log is as it was.
            self._fail(error, self._segment.size)
            raise
        self._segment.size += len(line)

    def _sync(self) -> None:
        if self._synced == self._segment.size:
            return
        try:
            os.fsync(self._fd)
        except BaseException as error:
            # The records may be there in full but not durable.
            self._fail(error, self._synced)
            raise
        self._synced = self._segment.size

    def _fail(self, error: BaseException, good: int) -> None:
        """Takes no more records, and cuts the log where it is known to be ``good``. ``StoreError`` for ``OSError``."""
        self._broken = f"an earlier write failed: {error or type(error).__name__}"
        with suppress(OSError):
            os.ftruncate(self._fd, good)
            os.fsync(self._fd)
        self._let_go()
        if isinstance(error, OSError):
            raise write_failed(self._segment.path, error) from error
