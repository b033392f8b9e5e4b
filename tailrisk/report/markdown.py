"""The short form of a report, as Markdown: headline, tables, caveats; for an issue, a review or a model card.

Foreign texts stand in it as they are made visible, with every character that Markdown or HTML would take for its own
spelled out; answers of the model are not in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from tailrisk.report import tables
from tailrisk.report.exhibit import Cell, Table
from tailrisk.report.sections import Report
from tailrisk.report.tables import Row

MOST_ROWS = 50
_SPECIAL = re.compile(r"([\\`*_\[\]<>#!|~$&])")
_SCHEME = re.compile(r"(?i)\b(https?|ftp|mailto|www)([:.])")


def report_markdown(report: Report) -> str:
    """Sections of the page that have a short form, under their numbers."""
    h, p, of_all = report.headline, report.prompts, report.populations
    parts = [
        f"# {text(h.name)}",
        f"**{text(h.claim)}**",
        "## 1 Headline",
        "Not claimed:",
        _list(h.not_claimed),
        _facts([("model", h.model), *((f"hash of {n}", v) for n, v in h.hashes), ("date", h.date), ("event", h.event),
                ("its judge", h.judge_error), ("sampling", h.sampling),
                ("prompts", f"{h.prompts:,}: {', '.join(f'{n} {s}' for s, n in h.statuses)}"),
                ("confidence", f"{tables.percent(h.confidence)} for each prompt on its own")]),
        "## 2 Prompts",
        _grid(("prompt", "category", "estimate", "interval", "certified below", "status", "hits", "draws"),
              map(_row, p.rows[:MOST_ROWS])),
        _more(p.total, MOST_ROWS, "prompts"),
        "## 3 Populations",
        "" if of_all.mean is None else (
            f"Mean over {of_all.mean.prompts:,} prompts: {tables.number(of_all.mean.value)}, standard error "
            f"{tables.number(of_all.mean.standard_error)}."
        ),
        f"The worst prompts, with intervals that hold for all {of_all.family:,} at once:" if of_all.worst.rows else "",
        table(of_all.worst),
        "Prompts shown to lie above a threshold, to prompts that are not shown to lie below it:",
        table(of_all.categories),
        *_wording(report),
        *_forecast(report),
        "## 5 Judge",
        _facts(report.judge.settings),
        "## 7 Validity",
        _facts(report.validity.checks),
        "## 8 Budget",
        _facts((*report.budget.limits, *report.budget.lost)),
        table(report.budget.by_component),
        "## 9 Reproducibility manifest",
        _facts((*report.reproduction.tracking, *report.reproduction.versions, *report.reproduction.hashes)),
        table(report.reproduction.segments),
        "## 10 Reporting standard and caveats",
        f"{text(report.standard.name)}. {text(report.standard.note)}",
        table(report.standard.criteria),
        _list(report.standard.caveats),
    ]  # fmt: skip
    return "\n\n".join(part for part in parts if part) + "\n"


def _wording(report: Report) -> list[str]:
    w = report.wording
    return [] if w is None else [text(w.claim), "" if w.kinds is None else table(w.kinds.data)]


def _forecast(report: Report) -> list[str]:
    f = report.forecast
    if f is None:
        return []
    lines = _grid(("what", "certified", "model-based"), f.lines)
    return [
        "## 4 Deployment forecast",
        text(f.claim),
        f"The traffic: {text(f.mix)}.",
        lines,
        _list(f.warnings),
        _list(f.fresh),
    ]


def _row(r: Row) -> tuple[str, ...]:
    ends = tables.estimate_cell(r), tables.interval_cell(r), tables.number(r.certified[1])
    return r.prompt_id, r.category, *ends, r.status.value, tables.count(r.hits), tables.count(r.draws)


def text(value: str) -> str:
    """``value`` in one line, with nothing left for Markdown or HTML to act on."""
    spelled = _SPECIAL.sub(r"\\\1", " ".join(value.split())).replace("\\<", "&lt;").replace("\\>", "&gt;")
    return _SCHEME.sub(lambda m: f"{m[1]}&#{ord(m[2])};", spelled.replace("\\&", "&amp;"))


def table(data: Table) -> str:
    """A table of an exhibit; '' without rows."""
    if not data.rows:
        return ""
    grid = _grid(data.head, (tuple(map(_cell, row)) for row in data.rows[:MOST_ROWS]))
    more = _more(len(data.rows) + data.left_out, MOST_ROWS, "rows")
    return f"{grid}\n\n{more}" if more else grid


def _cell(value: Cell) -> str:
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    return tables.count(value) if isinstance(value, int) else tables.number(value, 3)


def _grid(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        f"| {' | '.join(c if i == 1 else text(c) for c in line)} |" for i, line in enumerate(lines)
    )


def _facts(pairs: Iterable[tuple[str, str]]) -> str:
    return "\n".join(f"- {text(name)}: {text(value)}" for name, value in pairs)


def _list(lines: Iterable[str]) -> str:
    return "\n".join(f"- {text(line)}" for line in lines)


def _more(total: int, most: int, what: str) -> str:
    return f"{total - most:,} more {what} are not listed." if total > most else ""
