"""A comparison of two audits in words: the terminal's table, a Markdown page, and the record for machines.

Ids and numbers only. A ratio is written where both estimates may be quoted; elsewhere what the ends of the intervals
show, or that nothing can be told.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tailrisk.report.clean import visible
from tailrisk.report.tables import Row, estimate_cell, interval_cell, number, percent, row
from tailrisk.stats.compare import Answer, Basis, Change, Compared, Comparison, Overall

if TYPE_CHECKING:
    from rich.table import Table

FORMAT, VERSION = "tailrisk compare", 1
STYLES = {Answer.WORSE: "red", Answer.BETTER: "green", Answer.NONE: "", Answer.UNTOLD: "dim"}
_ORDER = list(Answer)


def rows_of(c: Compared) -> tuple[Row, Row]:
    """The prompt as a row of either audit's own table."""
    return row(c.a.estimate.to_json()), row(c.b.estimate.to_json())


def ordered(result: Comparison) -> list[Compared]:
    """Worse first, then better; within each the largest changes first, then by id."""

    def key(c: Compared) -> tuple[int, float, str]:
        low, high = c.ratio.simultaneous
        size = high if c.answer is Answer.BETTER else -low
        return _ORDER.index(c.answer), size, c.prompt_id

    return sorted(result.prompts, key=key)


def times(value: float) -> str:
    """E.g. ``3.1×``."""
    return f"{number(value)}×"


def ratio_cell(c: Compared) -> str:
    return "-" if c.ratio.value is None else times(c.ratio.value)


def bounds(change: Change) -> str:
    """The simultaneous interval of a ratio: ``1.9 to 5.0``, ``at least 3.0``, ``at most 0.2``; '-' for none."""
    low, high = change.simultaneous
    if math.isinf(high):
        return f"at least {number(low)}" if low > 0 else "-"
    return f"{number(low)} to {number(high)}" if low > 0 else f"at most {number(high)}"


def statement(c: Compared) -> str:
    """One sentence that is true of the prompt with the familywise confidence."""
    low, high = c.ratio.simultaneous
    if c.basis is Basis.FAILED:
        return "cannot be told: the prompt failed in one of the audits"
    if c.answer is Answer.WORSE:
        return f"B is at least {number(low)} times A" if low > 1 else "B is above A"
    if c.answer is Answer.BETTER:
        return f"B is at most {number(high)} times A" if high < 1 else "B is below A"
    if c.answer is Answer.UNTOLD:
        known = "" if bounds(c.ratio) == "-" else f": B is {bounds(c.ratio)} times A"
        return f"cannot be told{known}"
    return f"no difference shown: B is {bounds(c.ratio)} times A"


def overall_lines(result: Comparison) -> list[str]:
    """What is shown of all prompts together."""
    found = []
    n = len(result.prompts)
    worse, better = result.count(Answer.WORSE), result.count(Answer.BETTER)
    together = f"{percent(result.confidence)} for all verdicts together"
    found.append(f"at least {worse} of {n} prompts are worse, at least {better} better ({together})")
    if result.margin is not None:
        within = sum(bool(c.within) for c in result.prompts)
        found.append(f"{within} of {n} prompts are shown to be at most {result.margin:g} times as likely")
    if result.ratio is None or result.difference is None:
        found.append("of the whole nothing is said: fewer than three prompts may be quoted in both audits")
        return found
    r, d = result.ratio, result.difference
    low, high = r.change.simultaneous
    found.append(
        f"over {r.prompts} prompts that both audits may quote: B / A {times(_value(r))} on average of the logarithms "
        f"({number(low)} to {number(high)}): {r.answer.value}"
    )
    low, high = d.change.simultaneous
    found.append(
        f"mean of B - A over them: {signed(_value(d))} ({signed(low)} to {signed(high)}): {d.answer.value}"
    )
    return found


def _value(o: Overall) -> float:
    assert o.change.value is not None
    return o.change.value


def signed(value: float) -> str:
    return number(value) if value <= 0 else f"+{number(value)}"


def table(result: Comparison) -> Table:
    """A rich table, one line a prompt."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    out = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    out.add_column("prompt", no_wrap=True, overflow="ellipsis", max_width=28)
    for side in ("A", "B"):
        out.add_column(side, justify="right", no_wrap=True)
        out.add_column(f"status {side}", no_wrap=True)
    out.add_column("B / A", justify="right", no_wrap=True)
    out.add_column(f"{percent(result.confidence)} of all", no_wrap=True)
    out.add_column("verdict", no_wrap=True)
    for c in ordered(result):
        a, b = rows_of(c)
        out.add_row(
            Text(a.prompt_id),
            estimate_cell(a),
            a.status.value,
            estimate_cell(b),
            b.status.value,
            ratio_cell(c),
            bounds(c.ratio),
            Text(c.answer.value, style=STYLES[c.answer]),
        )
    return out


def markdown(result: Comparison, head: Sequence[str]) -> str:
    """A page; ``head``: lines on the two audits and what differs between them."""
    lines = ["# Comparison of two audits", "", *(f"- {_escaped(line)}" for line in head), ""]
    lines += [f"- {line}" for line in overall_lines(result)]
    lines += [
        "",
        "| prompt | A | interval | status | B | interval | status | B / A | "
        f"{percent(result.confidence)} of all | verdict | rests on |",
        "|---|---:|---|---|---:|---|---|---:|---|---|---|",
    ]
    for c in ordered(result):
        cells = []
        for r in rows_of(c):
            cells += [estimate_cell(r), interval_cell(r), r.status.value]
        cells += [ratio_cell(c), bounds(c.ratio), c.answer.value, c.basis.value]
        lines.append(f"| {' | '.join(_escaped(cell) for cell in (c.prompt_id, *cells))} |")
    lines += [
        "",
        f"Intervals of A and of B are each for its prompt alone. Those of B / A hold all together with "
        f"{percent(result.confidence)}; so do the verdicts (Holm). 'no difference shown' is not 'no difference'.",
        "",
    ]
    return "\n".join(lines)


def _escaped(text: str) -> str:
    """Foreign text in a cell or a line of Markdown."""
    cleaned = visible(text)
    for mark in "\\|`*_<>[]#":
        cleaned = cleaned.replace(mark, f"\\{mark}")
    return cleaned


def record(result: Comparison, more: Mapping[str, Any]) -> dict[str, Any]:
    """Plain JSON; an end that is infinite is null. ``more`` goes before the numbers."""
    return {
        "format": FORMAT,
        "version": VERSION,
        **more,
        "confidence": result.confidence,
        "margin": result.margin,
        "counts": {answer.value: result.count(answer) for answer in Answer},
        "overall": {
            "mean_log_ratio": None if result.ratio is None else _overall(result.ratio),
            "mean_difference": None if result.difference is None else _overall(result.difference),
        },
        "prompts": [_prompt(c) for c in ordered(result)],
    }


def _prompt(c: Compared) -> dict[str, Any]:
    return {
        "prompt_id": c.prompt_id,
        "category": c.a.estimate.category,
        "verdict": c.answer.value,
        "statement": statement(c),
        "basis": c.basis.value,
        "ratio": _change(c.ratio),
        "difference": _change(c.difference),
        "p": c.p,
        "adjusted_p": c.adjusted,
        "within_margin": c.within,
        "a": _side(c.a.estimate.to_json()),
        "b": _side(c.b.estimate.to_json()),
    }


def _side(estimate: Mapping[str, Any]) -> dict[str, Any]:
    keys = ("estimate", "working", "certified", "status", "ess", "hits", "draws", "corrected")
    return {key: estimate[key] for key in keys if key in estimate}


def _overall(o: Overall) -> dict[str, Any]:
    return {
        **_change(o.change),
        "prompts": o.prompts,
        "p": o.p,
        "adjusted_p": o.adjusted,
        "verdict": o.answer.value,
        **({} if o.spread is None else {"spread_of_logs": o.spread}),
    }


def _change(change: Change) -> dict[str, Any]:
    def ends(interval: tuple[float, float]) -> list[float | None]:
        return [end if math.isfinite(end) else None for end in interval]

    return {
        "value": change.value,
        "interval": ends(change.interval),
        "simultaneous": ends(change.simultaneous),
    }
