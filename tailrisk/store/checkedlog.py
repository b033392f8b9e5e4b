"""The log of a run folder, checked once and then read as often as its readers need."""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Collection, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tailrisk.store.log import Segment, damaged, decode_body, segments

_HEAD = 9
"""Bytes of a line before its JSON text."""


class CheckedLog:
    """As it was when this was made; takes no lock and repairs nothing, so it may be made beside a writer. Holds the
    places of the records and none of their contents.

    ``StoreError`` for a damaged log; a folder without a log has no records.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._paths = segments(folder / "log")
        # Of each kind three numbers a record: segment, and where its line begins and ends.
        self._places: dict[str, array[int]] = {}
        for number, path in enumerate(self._paths):
            segment = Segment(path, last=path == self._paths[-1])
            start = 0
            for kind, _ in segment.bodies():
                places = self._places.get(kind)
                if places is None:
                    places = self._places[kind] = array("q")
                places.append(number)
                places.append(start)
                start = segment.size
                places.append(start)

    @classmethod
    def of(cls, source: Path | CheckedLog) -> CheckedLog:
        """The log of a run folder, or what was made of it before."""
        return source if isinstance(source, CheckedLog) else cls(source)

    def count(self, kind: str) -> int:
        """Records of this kind."""
        return len(self._places.get(kind, ())) // 3

    def records(self, kinds: Collection[str] | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
        """(kind, payload) of the records of these ``kinds`` (None: of all), in the order in which they were written."""
        wanted = self._places if kinds is None else {"", *kinds}
        places = [zip(p[::3], p[1::3], p[2::3], strict=True) for k, p in self._places.items() if k in wanted]
        for body in self._read(heapq.merge(*places)):
            yield decode_body(body, str(self.folder / "log"))

    def bodies(self, kind: str) -> Iterator[bytes]:
        """The JSON texts of the records of this kind, in the order in which they were written."""
        places = self._places.get(kind, array("q"))
        return self._read(zip(places[::3], places[1::3], places[2::3], strict=True))

    def _read(self, places: Iterable[tuple[int, int, int]]) -> Iterator[bytes]:
        with ExitStack() as stack:
            now, position, file = -1, 0, None
            for number, start, end in places:
                if file is None or number != now:
                    stack.close()
                    now, position, file = number, 0, stack.enter_context(self._paths[number].open("rb"))
                if position != start:
                    file.seek(start)
                line = file.read(end - start)
                if len(line) != end - start:
                    raise damaged(str(self._paths[number]), "it became shorter while it was read")
                position = end
                yield line[_HEAD:-1]
