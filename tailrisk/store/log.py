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
import re
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from tailrisk.errors import StoreError

FOOTER = "footer"
_NAME = re.compile(r"(\d{5,})\.jsonl")
_KIND = re.compile(rb'\{"kind":"(\w+)",')
_ENCODER = json.JSONEncoder(allow_nan=False, separators=(",", ":"))


def read_log(folder: Path, kinds: Collection[str] | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
    """All records (kind, payload) of the run folder ``folder`` in the order they were written; those of other
    ``kinds`` than these (None: of no kind) are left out: checked, but not parsed.

    Takes no lock and repairs nothing, so it may run beside a writer: it then ends with the last record
    that is whole. ``StoreError`` for a damaged log; a folder without a log has no records.
    """
    paths = segments(folder / "log")
    for path in paths:
        yield from Segment(path, last=path == paths[-1], kinds=kinds)


def encode_line(kind: str, payload: dict[str, Any] | str) -> bytes:
    """``payload`` as it is, or as JSON text already."""
    try:
        text = payload if isinstance(payload, str) else _ENCODER.encode(payload)
        data = f'{{"kind":{_ENCODER.encode(kind)},"payload":{text}}}'.encode("ascii")
    except (ValueError, TypeError) as error:
        raise StoreError(f"a record of kind {kind!r} is not plain JSON and is not logged: {error}") from error
    return b"%08x %s\n" % (zlib.crc32(data), data)


class Segment:
    """One file of the log; iterating it reads and checks every line.

    After the iteration ``size`` is the number of good bytes, ``records`` counts the records before the
    footer, ``sha`` has hashed them, and ``closed`` says whether the footer was there.
    """

    def __init__(self, path: Path, *, last: bool, kinds: Collection[str] | None = None) -> None:
        self.path = path
        self.last = last
        self._kinds = None if kinds is None else set(kinds)
        self._number = 0
        self.size = 0
        self.records = 0
        self.sha = hashlib.sha256()
        self.closed = False

    def __iter__(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for kind, body in self.bodies():
            if self._kinds is None or not kind or kind in self._kinds:
                yield decode_body(body, f"{self.path}:{self._number}")

    def bodies(self) -> Iterator[tuple[str, bytes]]:
        """Kind and JSON text of every record, checked but not parsed; the kind is '' where it cannot be seen from the
        first bytes. ``size`` is then where the record ends."""
        with self.path.open("rb") as file:
            for self._number, line in enumerate(file, 1):
                if line[-1:] != b"\n":
                    if self.last:
                        return
                    raise self._damaged("the line is cut short")
                body = line[9:-1]
                if line[8:9] != b" " or line[:8] != b"%08x" % zlib.crc32(body):
                    raise self._damaged("the checksum does not match")
                if self.closed:
                    raise self._damaged("a record follows the closing footer")
                self.size += len(line)
                match = _KIND.match(body)
                kind = "" if match is None else match[1].decode()
                if kind == FOOTER:
                    self._check_footer(body)
                    continue
                self.sha.update(line)
                self.records += 1
                yield kind, body
        if not (self.last or self.closed):
            raise damaged(str(self.path), "the closing footer is missing")

    def _check_footer(self, body: bytes) -> None:
        if decode_body(body, f"{self.path}:{self._number}")[1] != self.footer():
            raise self._damaged("the footer does not match the records before it")
        self.closed = True

    def footer(self) -> dict[str, Any]:
        return {"records": self.records, "sha256": self.sha.hexdigest()}

    def _damaged(self, what: str) -> StoreError:
        return damaged(f"{self.path}:{self._number}", what)


def segments(folder: Path) -> list[Path]:
    """The files of the log, in order; ``StoreError`` where one is missing."""
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


def decode_body(body: bytes, where: str) -> tuple[str, dict[str, Any]]:
    """(kind, payload) of a record's JSON text; ``where`` it stands is said of one that is none."""
    try:
        record = json.loads(body)
        return record["kind"], record["payload"]
    except (ValueError, KeyError, TypeError) as error:
        raise damaged(where, f"not a log record ({error})") from error


def damaged(where: str, what: str) -> StoreError:
    return StoreError(
        f"{where}: the log is damaged: {what}. Nothing was changed. Restore this file from a copy, or audit "
        "again under another run.name."
    )
