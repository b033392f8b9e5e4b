"""``run.log`` as the report reads it: who was busy when, what was lost and tried again, which commands were given.

The file may be missing, cut short, or from an older version: what cannot be read is left out. Times are those at which
the driver wrote a line, whole seconds; a batch is taken to have begun its ``seconds`` before the line that says it is
done. Sittings, from one ``opened`` to the next, are put one after another, the time between them left out.
"""

from __future__ import annotations

import json
import re
from array import array
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

_LINE = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)Z \w+ \S+ event=(\w+)(.*)")
_FIELD = re.compile(r' (\w+)=("(?:[^"\\]|\\.)*"|\[[^\]]*\]|\S+)')
_COUNTED = (
    "batch_failed",
    "batch_retried",
    "batch_given_up",
    "worker_gone",
    "node_lost",
    "interrupted",
    "stopped",
)


@dataclass(frozen=True, kw_only=True)
class Sitting:
    """``begin`` and ``end`` in seconds of the time line; ``pause``: seconds of the clock since the sitting before."""

    begin: float
    end: float
    pause: float


@dataclass
class EventLog:
    """Of each batch the ``worker`` (its number in ``workers``), ``begin`` and ``end`` in seconds of the time line, and
    ``draws``. ``counts``: of the events that cost work; ``cut_short``: calls that a lost worker had. ``commands``: of
    each sitting, with the state of the source; ``ready``: seconds that each worker took to be ready."""

    sittings: list[Sitting] = field(default_factory=list)
    workers: list[str] = field(default_factory=list)
    worker: array[int] = field(default_factory=lambda: array("l"))
    begin: array[float] = field(default_factory=lambda: array("d"))
    end: array[float] = field(default_factory=lambda: array("d"))
    draws: array[int] = field(default_factory=lambda: array("q"))
    counts: dict[str, int] = field(default_factory=dict)
    cut_short: int = 0
    commands: list[dict[str, str]] = field(default_factory=list)
    ready: list[float] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        return self.sittings[-1].end if self.sittings else 0.0


def read_events(folder: Path) -> EventLog:
    """Of a run folder; empty without a ``run.log``."""
    out, clock = EventLog(), _Clock()
    numbers: dict[str, int] = {}
    try:
        with (folder / "run.log").open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                match = _LINE.match(line)
                if match is not None:
                    _take(out, clock, numbers, match[1], match[2], match[3])
    except OSError:
        return EventLog()
    out.sittings = clock.sittings()
    return out


class _Clock:
    """From the clock's time to that of the time line."""

    def __init__(self) -> None:
        self._sittings: list[tuple[float, float, float]] = []
        self._offset = self._last = 0.0

    def at(self, text: str, *, opened: bool) -> float:
        now = datetime.fromisoformat(text).timestamp()
        if opened or not self._sittings:
            pause = now - self._last if self._sittings else 0.0
            end = self._sittings[-1][1] if self._sittings else 0.0
            self._offset = now - end
            self._sittings.append((end, end, max(pause, 0.0)))
        self._last = now
        begin, end, pause = self._sittings[-1]
        place = max(now - self._offset, begin)
        self._sittings[-1] = begin, max(end, place), pause
        return place

    def sittings(self) -> list[Sitting]:
        return [Sitting(begin=b, end=e, pause=p) for b, e, p in self._sittings]


def _take(out: EventLog, clock: _Clock, numbers: dict[str, int], time: str, event: str, rest: str) -> None:
    try:
        now = clock.at(time, opened=event == "opened")
        if event in _COUNTED:
            out.counts[event] = out.counts.get(event, 0) + 1
        if event == "batch_done":
            given = _fields(rest)
            seconds, draws = float(given["seconds"]), int(given["draws"])
            name = str(given["worker"])
            out.worker.append(numbers.setdefault(name, len(numbers)))
            out.begin.append(now - seconds)
            out.end.append(now)
            out.draws.append(draws)
            if len(numbers) > len(out.workers):
                out.workers.append(name)
        elif event == "worker_gone":
            out.cut_short += len(_fields(rest).get("cut_short") or ())
        elif event == "worker_ready":
            out.ready.append(float(_fields(rest)["seconds"]))
        elif event == "command":
            out.commands.append({k: str(v) for k, v in _fields(rest).items()})
    except (KeyError, ValueError, TypeError, OverflowError):
        return


def _fields(rest: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for match in _FIELD.finditer(rest):
        value = match[2]
        try:
            found[match[1]] = json.loads(value)
        except ValueError:
            found[match[1]] = value
    return found
