"""Which proposal worked where: prompts as rows, components as columns, for the page's heat map.

It is a table with coloured cells, not a drawing: its numbers are text, it prints, scrolls and follows the
page's colours. It shows the prompts of the forest plot and as many columns as a page is wide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tailrisk.records import Status
from tailrisk.report.clean import visible
from tailrisk.report.figures import MOST_ROWS
from tailrisk.report.tables import Row, percent

MOST_COLUMNS = 20
MOST_DATA = 4000


@dataclass(frozen=True)
class Found:
    """What a column found of a prompt. ``part``: of the estimate, None if there is nothing to divide (no hits,
    no draws, or a record of before parts were recorded); ``share``: of the prompt's draws."""

    part: float | None
    share: float
    draws: int
    hits: int

    @property
    def said(self) -> str:
        """E.g. ``53% of the estimate from 12% of the draws (40 hits in 120 draws)``."""
        if not self.draws:
            return "no draws"
        part = "" if self.part is None else f"{percent(self.part)} of the estimate from "
        return f"{part}{percent(self.share)} of the draws ({self.hits:,} hits in {self.draws:,} draws)"


@dataclass(frozen=True)
class Column:
    """One component, or in the last column all that have none of their own. ``mean`` of part and share, over
    the ``prompts`` that have a part here, those without a line included; None if there are none."""

    label: str
    names: tuple[str, ...]
    mean: tuple[float, float] | None = None
    prompts: int = 0


@dataclass(frozen=True)
class Line:
    """A prompt; a cell is None where the column is not among the prompt's components."""

    row: Row
    cells: tuple[Found | None, ...]


@dataclass(frozen=True)
class HeatMap:
    """``left_out``: prompts without a line, besides the ``failed`` ones, which count nowhere. ``joined``:
    components in the last column, 0 if each has its own. ``unrecorded``: some prompt has an estimate and no
    parts of it. ``data``: prompt, component and what it found, for all prompts and what they drew from, as far as there
    is room; ``data_left_out``: rows without."""

    columns: tuple[Column, ...]
    lines: tuple[Line, ...]
    left_out: int
    failed: int
    joined: int
    unrecorded: bool
    data: tuple[tuple[str, str, Found], ...]
    data_left_out: int


def heat_map(names: Sequence[str], listed: Sequence[Row]) -> HeatMap:
    """``names``: all components of the run in order; ``listed``: rows, the most important first."""
    usable = [r for r in listed if r.status is not Status.FAILED]
    shown = usable[:MOST_ROWS]
    data = [(r.prompt_id, visible(n), f) for r in usable for n in names if (f := found(r, [n])) and f.draws]
    columns = [_with_mean(c, usable) for c in _columns(names, shown)]
    return HeatMap(
        columns=tuple(columns),
        lines=tuple(Line(r, tuple(found(r, c.names) for c in columns)) for r in shown),
        left_out=len(usable) - len(shown),
        failed=len(listed) - len(usable),
        joined=max((len(c.names) for c in columns if len(c.names) > 1), default=0),
        unrecorded=any("part" not in e for r in usable if _has_estimate(r) for e in r.components.values()),
        data=tuple(data[:MOST_DATA]),
        data_left_out=max(len(data) - MOST_DATA, 0),
    )


def found(r: Row, names: Sequence[str]) -> Found | None:
    """What these components found together; None if none of them is among the prompt's."""
    entries = [r.components[n] for n in names if n in r.components]
    if not entries:
        return None
    draws = sum(int(e["draws"]) for e in entries)
    parts = [e.get("part") for e in entries]
    known = [p for p in parts if p is not None]
    divided = _has_estimate(r) and draws and len(known) == len(parts)
    return Found(
        part=sum(known) if divided else None,
        share=sum(e["share"] for e in entries),
        draws=draws,
        hits=sum(int(e["hits"]) for e in entries),
    )


def _has_estimate(r: Row) -> bool:
    return r.hits > 0 and (r.estimate if r.judged is None else r.judged) > 0


def _columns(names: Sequence[str], shown: Sequence[Row]) -> list[Column]:
    """A column for the target and for each component that some prompt drew from; of too many, those that found
    most keep theirs, and the target does."""

    def drawn_from(name: str) -> bool:
        return any((f := found(r, [name])) and f.draws for r in shown)

    drawn = [n for n in names if n == names[0] or drawn_from(n)]
    if len(drawn) <= MOST_COLUMNS:
        return [Column(visible(n), (n,)) for n in drawn]

    def importance(name: str) -> tuple[bool, float, float]:
        here = [f for r in shown if (f := found(r, [name]))]
        return name == names[0], sum(f.part or 0.0 for f in here), sum(f.share for f in here)

    own = set(sorted(drawn, key=importance, reverse=True)[: MOST_COLUMNS - 1])
    rest = tuple(n for n in drawn if n not in own)
    return [*(Column(visible(n), (n,)) for n in drawn if n in own), Column(f"{len(rest)} others", rest)]


def _with_mean(column: Column, usable: Sequence[Row]) -> Column:
    here = [(f.part, f.share) for r in usable if (f := found(r, column.names)) and f.part is not None]
    if not here:
        return column
    part, share = (sum(values) / len(here) for values in zip(*here, strict=True))
    return replace(column, mean=(part, share), prompts=len(here))
