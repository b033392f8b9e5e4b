"""Figures and tables as data: what the page draws, report.json holds and the Markdown form prints.

A figure answers one question and brings the table that it was drawn from. All texts in them are safe to look at
(``report.clean``); the page escapes them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import Field

Cell = str | int | float | None


@dataclass(frozen=True)
class Table:
    """``head``: names of the columns; every row has as many cells. ``left_out``: rows that are not listed."""

    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    left_out: int = 0

    def numeric(self, column: int) -> bool:
        """Whether the column holds numbers, and is set to the right."""
        cells = [row[column] for row in self.rows if row[column] is not None]
        return bool(cells) and not any(isinstance(cell, str) for cell in cells)


def table(head: Sequence[str], rows: Iterable[Sequence[Cell]], *, most: int | None = None) -> Table:
    """A table of at most ``most`` rows (None: of all)."""
    listed = tuple(tuple(row) for row in rows)
    kept = listed if most is None else listed[:most]
    return Table(tuple(head), kept, len(listed) - len(kept))


@dataclass(frozen=True)
class Figure:
    """``name``: unique in a report, of letters and hyphens. ``reading``: how to read it. ``draw`` makes ``svg``, an
    ``<svg>`` element of ``report.svg``, which is not part of report.json: only a page pays for drawing it."""

    name: str
    question: str
    reading: str
    data: Table
    draw: Annotated[Callable[[], str], Field(exclude=True)] = field(repr=False, compare=False)

    @property
    def svg(self) -> str:
        """Drawn anew each time."""
        return self.draw()
