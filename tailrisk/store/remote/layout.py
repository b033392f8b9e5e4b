"""How a run folder lies on an object store, where nothing can be appended to.

Everything has the name that it has in the folder. Closed segments of the log are objects of their own; what the open
segment gains is sent in parts, ``open/SEGMENT-START-TERM.jsonl``, from byte START on, by the driver of that term (a
number that grows from driver to driver, see ``lease``). A segment's parts go when it is there as a whole. So a run that
has ended lies there exactly as on a disk.

Whoever goes on takes the longest valid prefix: part after part, each where the last one ends, terms never falling. A
part that a driver sent after it was thought dead is passed over, where the next driver sent one in its place.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Mapping
from itertools import count
from typing import NamedTuple

from tailrisk.store.log import FOOTER
from tailrisk.store.remote.objects import Objects

MANIFEST = "manifest.json"
LEASES = "leases"
_PART = re.compile(r"open/(\d{5,})-(\d{10,})-(\d{4,})\.jsonl")
_CLOSING = b'{"kind":"%s"' % FOOTER.encode()


class Part(NamedTuple):
    segment: int
    start: int
    term: int

    @property
    def name(self) -> str:
        return f"open/{self.segment:05d}-{self.start:010d}-{self.term:04d}.jsonl"


def segment_name(number: int) -> str:
    return f"log/{number:05d}.jsonl"


def is_log(name: str) -> bool:
    return name.startswith(("log/", "open/"))


def parts(names: Mapping[str, int], segment: int) -> list[Part]:
    """The parts of a segment that are there."""
    found = (_PART.fullmatch(name) for name in names)
    return sorted(p for m in found if m and (p := Part(*map(int, m.groups()))).segment == segment)


def segments(objects: Objects, names: Mapping[str, int]) -> Iterator[tuple[int, bytes]]:
    """The longest valid prefix of the log, segment by segment (at most one in memory); all but the last are closed."""
    for number in count():
        data = _segment(objects, names, number)
        if data:
            yield number, data
        if not is_closed(data):
            return


def whole_lines(data: bytes) -> bytes:
    """``data`` up to its last line break."""
    return data[: data.rfind(b"\n") + 1]


def is_closed(data: bytes) -> bool:
    start = data.rfind(b"\n", 0, -1) + 1
    return data.endswith(b"\n") and data[start + 9 :].startswith(_CLOSING)


def _segment(objects: Objects, names: Mapping[str, int], number: int) -> bytes:
    name = segment_name(number)
    whole = objects.read(name, names[name]) if name in names else b""
    if is_closed(whole):
        return whole
    there = parts(names, number)
    whole = _sound(whole)
    # Parts are removed after the whole is there; where that was cut short, either may reach further.
    chains = [_chain(objects, names, there, start) for start in ([whole, b""] if whole else [b""])]
    return max(chains, key=len)


def _chain(objects: Objects, names: Mapping[str, int], there: list[Part], data: bytes) -> bytes:
    term = 0
    while True:
        next_ = [part for part in there if part.start == len(data) and part.term >= term]
        if not next_:
            return data
        part = max(next_, key=lambda p: p.term)
        there = [p for p in there if p != part]
        data += _sound(objects.read(part.name, names[part.name]))
        term = part.term


def _sound(data: bytes) -> bytes:
    """The lines before the first that is damaged or cut short."""
    end = 0
    for line in data.splitlines(keepends=True):
        body = line[9:-1]
        if not line.endswith(b"\n") or line[:9] != b"%08x " % zlib.crc32(body):
            break
        end += len(line)
    return data[:end]
