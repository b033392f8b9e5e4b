"""The append-only log of a run: segments of checksummed lines, the only truth about what was drawn.

A line is ``CRC32 JSON``: eight hex digits of the CRC-32 of the JSON text, which is
``{"kind": ..., "payload": ...}`` without a line break. A segment that reached its size ends with a
``footer`` record (number of records and SHA-256 of all bytes before it) and is followed by the next one.
A record counts once its line break is on disk: a tail without one is what a killed writer left, and is
cut when the last segment is opened for writing. A bad byte anywhere else is a ``StoreError``, never skipped.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from tailrisk.errors import StoreError
from tailrisk.store.atomic import sync_folder, write_failed

SEGMENT_BYTES = 64 * 2**20
FOOTER = "footer"
_NAME = re.compile(r"(\d{5,})\.jsonl")
_KIND = re.compile(rb'\{"kind":"(\w+)",')
_ENCODER = json.JSONEncoder(allow_nan=False, separators=(",", ":"))


def read_log(
    folder: Path,
    kinds: Collection[str] | None = None,
    wanted: Callable[[bytes], bool] | None = None,
) -> Iterator[tuple[str, dict[str, Any]]]:
    """All records (kind, payload) of the run folder ``folder`` in the order they were written; those of other
    ``kinds`` than these (None: of no kind), and those whose JSON text is not ``wanted``, are left out: checked, but
    not parsed.

    Takes no lock and repairs nothing, so it may run beside a writer: it then ends with the last record
    that is whole. ``StoreError`` for a damaged log; a folder without a log has no records.
    """
    paths = _segments(folder / "log")
    for path in paths:
        yield from Segment(path, last=path == paths[-1], kinds=kinds, wanted=wanted)


def encode_line(kind: str, payload: dict[str, Any]) -> bytes:
    try:
        body = _ENCODER.encode({"kind": kind, "payload": payload})
    except (ValueError, TypeError) as error:
        raise StoreError(f"a record of kind {kind!r} is not plain JSON and is not logged: {error}") from error
    data = body.encode("ascii")
    return b"%08x %s\n" % (zlib.crc32(data), data)


class Segment:
    """One file of the log; iterating it reads and checks every line.

    After the iteration ``size`` is the number of good bytes, ``records`` counts the records before the
    footer, ``sha`` has hashed them, and ``closed`` says whether the footer was there.
    """

    def __init__(
        self,
        path: Path,
        *,
        last: bool,
        kinds: Collection[str] | None = None,
        wanted: Callable[[bytes], bool] | None = None,
    ) -> None:
        self.path = path
        self._wanted = wanted
        self.last = last
        self._kinds = None if kinds is None else {FOOTER, *kinds}
        self.size = 0
        self.records = 0
        self.sha = hashlib.sha256()
        self.closed = False

    def __iter__(self) -> Iterator[tuple[str, dict[str, Any]]]:
        with self.path.open("rb") as file:
            for number, line in enumerate(file, 1):
                where = f"{self.path}:{number}"
                if not line.endswith(b"\n"):
                    if self.last:
                        return
                    raise _damaged(where, "the line is cut short")
                body = _checked(line, where)
                if self.closed:
                    raise _damaged(where, "a record follows the closing footer")
                self.size += len(line)
                if self._unwanted(body):
                    self.sha.update(line)
                    self.records += 1
                    continue
                kind, payload = _decode(body, where)
                if kind == FOOTER:
                    self._check_footer(payload, where)
                    continue
                self.sha.update(line)
                self.records += 1
                yield kind, payload
        if not (self.last or self.closed):
            raise _damaged(str(self.path), "the closing footer is missing")

    def _unwanted(self, body: bytes) -> bool:
        """Whether the record is of another kind than asked for, seen from its first bytes."""
        if self._kinds is None:
            return False
        match = _KIND.match(body)
        if match is None or match[1].decode() == FOOTER:
            return False
        return match[1].decode() not in self._kinds or (self._wanted is not None and not self._wanted(body))

    def _check_footer(self, payload: dict[str, Any], where: str) -> None:
        if payload != self.footer():
            raise _damaged(where, "the footer does not match the records before it")
        self.closed = True

    def footer(self) -> dict[str, Any]:
        return {"records": self.records, "sha256": self.sha.hexdigest()}


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
        self._fd = -1
        self.cut = 0
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            sync_folder(folder)
        except OSError as error:
            raise write_failed(self._folder, error) from error
        paths = _segments(self._folder)
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

    def append(self, kind: str, payload: dict[str, Any]) -> None:
        """Writes one record and syncs it; when this returns, the record survives a crash."""
        if self._fd < 0:
            raise StoreError(f"{self._segment.path}: no more records are taken ({self._broken or 'closed'})")
        line = encode_line(kind, payload)
        if self._segment.size >= self._limit:
            self._roll()
        self._write(line)
        self._segment.sha.update(line)
        self._segment.records += 1

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _roll(self) -> None:
        self._write(encode_line(FOOTER, self._segment.footer()))
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
        sync_folder(self._folder)

    def _continue(self) -> None:
        path = self._segment.path
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND)
        self.cut = os.fstat(self._fd).st_size - self._segment.size
        if self.cut:
            os.ftruncate(self._fd, self._segment.size)
            os.fsync(self._fd)

    def _write(self, line: bytes) -> None:
        try:
            view = memoryview(line)
            while view:
                view = view[os.write(self._fd, view) :]
            os.fsync(self._fd)
        except BaseException as error:
            # The record may be there in part, or in full but not durable: without it the log is as it was.
            self._broken = f"an earlier write failed: {error or type(error).__name__}"
            with suppress(OSError):
                os.ftruncate(self._fd, self._segment.size)
                os.fsync(self._fd)
            self.close()
            if isinstance(error, OSError):
                raise write_failed(self._segment.path, error) from error
            raise
        self._segment.size += len(line)


def _segments(folder: Path) -> list[Path]:
    numbered = sorted(
        (int(match[1]), path) for path in folder.glob("*.jsonl") if (match := _NAME.fullmatch(path.name))
    )
    for expected, (number, _) in enumerate(numbered):
        if number != expected:
            raise StoreError(
                f"{folder}: segment {expected:05d}.jsonl is missing, later ones are there; restore it from a "
                "copy, or use another run.name"
            )
    return [path for _, path in numbered]


def _checked(line: bytes, where: str) -> bytes:
    """The JSON text of a line, by its checksum what was written."""
    body = line[9:-1]
    if line[8:9] != b" " or line[:8] != b"%08x" % zlib.crc32(body):
        raise _damaged(where, "the checksum does not match")
    return body


def _decode(body: bytes, where: str) -> tuple[str, dict[str, Any]]:
    try:
        record = json.loads(body)
        return record["kind"], record["payload"]
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(where, f"not a log record ({error})") from error


def _damaged(where: str, what: str) -> StoreError:
    return StoreError(
        f"{where}: the log is damaged: {what}. Nothing was changed. Restore this file from a copy, or audit "
        "again under another run.name."
    )
