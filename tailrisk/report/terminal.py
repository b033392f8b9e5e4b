"""The table of prompts on a terminal: ids, categories and numbers, never prompt or response text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tailrisk.records import Status
from tailrisk.report import tables
from tailrisk.report.processors import mixture
from tailrisk.report.tables import Row

if TYPE_CHECKING:
    from rich.table import Table

WITH_CATEGORY = 106

STYLES = {
    Status.OK: "green",
    Status.BUDGET_EXHAUSTED: "yellow",
    Status.BOUND_ONLY: "cyan",
    Status.UNRELIABLE: "red",
    Status.FAILED: "bold red",
}


def table(listed: Sequence[Row], *, limit: int | None = None, width: int | None = None) -> Table:
    """A rich table, one line a prompt; at most ``limit`` of them, those left out counted below. On a terminal
    of less than ``WITH_CATEGORY`` columns (``width``) the categories make room for the numbers."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    narrow = width is not None and width < WITH_CATEGORY
    confidence = tables.percent(listed[0].confidence) if listed else ""
    out = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    out.add_column("prompt", no_wrap=True, overflow="ellipsis", max_width=28)
    if not narrow:
        out.add_column("category", no_wrap=True, overflow="ellipsis", max_width=22)
    out.add_column("estimate", justify="right", no_wrap=True)
    out.add_column(f"{confidence} interval".strip(), no_wrap=True)
    out.add_column("ESS", justify="right", no_wrap=True)
    out.add_column("status", no_wrap=True)
    out.add_column("budget", justify="right", no_wrap=True)
    shown = listed if limit is None else listed[:limit]
    for r in shown:
        # Text, not str: an id or a category may look like rich markup
        out.add_row(
            Text(r.prompt_id),
            *([] if narrow else [Text(r.category)]),
            tables.estimate_cell(r),
            tables.interval_cell(r),
            tables.count(r.ess),
            Text(r.status.value, style=STYLES[r.status]),
            tables.percent(r.spent),
        )
    if len(shown) < len(listed):
        out.caption = f"and {len(listed) - len(shown)} more"
    return out


def judge_line(totals: Mapping[str, Any]) -> str:
    """E.g. ``judge calls: 812 of 4,000 answers (80% were seen before)``; '' where none was."""
    judge = totals.get("judge") or {}
    if not judge.get("saved"):
        return ""
    seen = tables.percent(judge["saved"] / judge["answers"])
    return f"judge calls: {judge['calls']:,} of {judge['answers']:,} answers ({seen} were seen before)"


def strong_line(totals: Mapping[str, Any]) -> str:
    """E.g. ``strong judge: 480 of 500 calls, 35 harmful``; '' for a run without one."""
    strong = totals.get("strong")
    if not strong:
        return ""
    failed = f", {strong['errors']:,} not judged" if strong.get("errors") else ""
    return f"strong judge: {strong['calls']:,} of {strong['calls_allowed']:,} calls, {strong['harm']:,} harmful{failed}"


def lines(totals: Mapping[str, Any]) -> list[str]:
    """What is to be said below a run's table."""
    said = (judge_line(totals), strong_line(totals), processor_line(totals))
    return [line for line in said if line]


def processor_line(totals: Mapping[str, Any]) -> str:
    """A warning of draws from several laws; '' where all are from one."""
    mixed = mixture(totals)
    return f"warning: {mixed}" if mixed else ""


def totals_line(listed: Sequence[Row], draws: int, budget_draws: int | None = None) -> str:
    """E.g. ``24 prompts: 20 ok, 4 bound-only; 8,000 of 10,000 draws``."""
    counts = (
        ", ".join(f"{n} {status.value}" for status, n in tables.by_status(listed).items()) or "nothing yet"
    )
    of = f" of {budget_draws:,}" if budget_draws else ""
    return f"{len(listed)} prompts: {counts}; {draws:,}{of} draws"
