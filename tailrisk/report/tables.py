"""Estimates as rows: which number and which interval of a prompt is shown, and how it is written.

An estimate is never written without its status. Where the diagnostics do not allow the working interval the
certified one is shown and named as such; a prompt without hits has an upper bound and no estimate.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tailrisk.records import Status
from tailrisk.report.clean import visible

Interval = tuple[float, float]

SETTLED = (Status.OK,)
STATUS_MEANING = {
    Status.OK: "the diagnostics pass and the interval is as narrow as asked",
    Status.BUDGET_EXHAUSTED: "the diagnostics pass; the interval is wider than asked",
    Status.BOUND_ONLY: "no harmful answer was drawn, or none that its judge could not have flagged by mistake: only "
    "the certified upper bound is a result",
    Status.UNRELIABLE: "a diagnostic failed: do not quote the estimate, only the certified interval",
    Status.FAILED: "the prompt could not be drawn or scored; there is no result",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One prompt's estimate record, typed; ``spent`` is its share of all draws of the run.

    Where the judge's error is known, estimate and intervals are those that are corrected for it, ``judged`` is the
    estimate of what is judged harm, and ``resolved`` says whether the judge tells the prompt from a harmless one.
    """

    prompt_id: str
    category: str
    estimate: float
    working: Interval | None
    certified: Interval
    confidence: float
    status: Status
    reasons: tuple[str, ...]
    draws: int
    target_draws: int
    hits: int
    undetermined: int
    ess: float
    k_hat: float | None
    max_weight_share: float | None
    mean_weight: float | None
    mean_weight_se: float | None
    gain_vs_mc: float | None
    components: Mapping[str, Mapping[str, float]]
    spent: float = 0.0
    group: str = ""
    perturbation: str = ""
    judged: float | None = None
    resolved: bool = True
    strong: Mapping[str, float | None] | None = None
    """What a strong judge changed; see ``Estimate.strong``."""

    @property
    def interval(self) -> Interval:
        """The working interval where there is one, else the certified one."""
        return self.working or self.certified

    @property
    def upper(self) -> float:
        """The upper end that a risk limit is compared with."""
        return self._trusted[1]

    @property
    def lower(self) -> float:
        """The lower end beside ``upper``."""
        return self._trusted[0]

    @property
    def _trusted(self) -> Interval:
        return self.interval if self.status in (Status.OK, Status.BUDGET_EXHAUSTED) else self.certified


def _pair(value: Sequence[float]) -> Interval:
    low, high = value
    return (float(low), float(high))


def row(record: Mapping[str, Any], of_all: int = 0) -> Row:
    """A row from an estimate record (``Estimate.to_json()`` or an entry of estimates.json). ``of_all``: draws of the
    run, 0 where the row's part of them is not wanted."""
    known = record.get("corrected")
    told = record if known is None else known
    working = told.get("working")
    draws = int(record.get("draws") or 0)
    return Row(
        prompt_id=visible(str(record["prompt_id"])),
        category=visible(str(record.get("category") or "")),
        estimate=float(told.get("estimate") or 0.0),
        working=_pair(working) if working and (known is None or known["resolved"]) else None,
        certified=_pair(told.get("certified") or (0.0, 1.0)),
        confidence=float(record.get("confidence") or 0.95),
        status=Status(record["status"]),
        reasons=tuple(visible(str(reason)) for reason in record.get("reasons") or ()),
        draws=draws,
        target_draws=int(record.get("target_draws") or 0),
        hits=int(record.get("hits") or 0),
        undetermined=int(record.get("undetermined") or 0),
        ess=float(record.get("ess") or 0.0),
        k_hat=record.get("k_hat"),
        max_weight_share=record.get("max_weight_share"),
        mean_weight=record.get("mean_weight"),
        mean_weight_se=record.get("mean_weight_se"),
        gain_vs_mc=record.get("gain_vs_mc"),
        components=record.get("components") or {},
        group=visible(str(record.get("group") or "")),
        perturbation=visible(str(record.get("perturbation") or "")),
        judged=None if known is None else float(record.get("estimate") or 0.0),
        resolved=known is None or bool(known["resolved"]),
        strong=record.get("strong"),
        spent=draws / of_all if of_all else 0.0,
    )


def rows(records: Iterable[Mapping[str, Any]]) -> list[Row]:
    """Rows of all prompts, the largest upper end first (ties by id)."""
    held = list(records)
    total = sum(int(record.get("draws") or 0) for record in held)
    return sorted((row(record, total) for record in held), key=lambda r: (-r.upper, r.prompt_id))


def number(value: float | None, digits: int = 2) -> str:
    """A probability or another positive number in two significant digits; '-' where there is none."""
    if value is None or not math.isfinite(value):
        return "-"
    if value == 0:
        return "0"
    if 0.01 <= abs(value) < 10_000:
        decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
        return f"{value:,.{decimals}f}"
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def estimate_cell(r: Row) -> str:
    if r.status is Status.FAILED:
        return "-"
    if r.hits and not r.resolved:
        return "not resolved"
    return number(r.estimate) if r.hits else "no hits"


def interval_cell(r: Row) -> str:
    """E.g. ``2.1e-4 to 5.0e-4``, or ``below 3.0e-3 (certified)``."""
    if r.status is Status.FAILED:
        return "-"
    if r.status in (Status.OK, Status.BUDGET_EXHAUSTED) and r.working:
        return f"{number(r.working[0])} to {number(r.working[1])}"
    low, high = r.certified
    return f"{number(low)} to {number(high)} (certified)" if low > 0 else f"below {number(high)} (certified)"


def change(before: Row, after: Row) -> str:
    """One prompt before and after a review, with both statuses."""
    return (
        f"{estimate_cell(before)} [{interval_cell(before)}] {before.status.value} before the review, "
        f"{estimate_cell(after)} [{interval_cell(after)}] {after.status.value} after it"
    )


def percent(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return "-"
    return f"{100 * value:.1f}%" if 0 < value < 0.1 else f"{100 * value:.0f}%"


def count(value: float | None) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:,.0f}"


def gain_cell(r: Row) -> str:
    """Gain over plain sampling; it rests on the estimate, so only where that may be quoted."""
    if r.gain_vs_mc is None or r.status not in (Status.OK, Status.BUDGET_EXHAUSTED):
        return "-"
    return f"{number(r.gain_vs_mc)}×"


def by_status(listed: Iterable[Row]) -> dict[Status, int]:
    """Number of prompts of each status, in the order of ``Status``, zeros left out."""
    seen = [r.status for r in listed]
    return {status: seen.count(status) for status in Status if status in seen}


def claim(listed: Sequence[Row]) -> str:
    """What the run shows, in one or two sentences that are true of every row."""
    total = len(listed)
    if not total:
        return "No prompt has an estimate yet."
    ok = [r for r in listed if r.status is Status.OK]
    rest = [r for r in listed if r.status not in (Status.OK, Status.FAILED)]
    failed = total - len(ok) - len(rest)
    confidence = percent(listed[0].confidence)
    parts = [
        f"For {len(ok)} of {total} prompts the estimate is settled: the diagnostics pass and the "
        f"{confidence} working interval is as narrow as asked."
    ]
    if ok:
        low, high = min(r.estimate for r in ok), max(r.estimate for r in ok)
        parts.append(f"These estimates lie between {number(low)} and {number(high)}.")
    if rest:
        bound = number(max(r.certified[1] for r in rest))
        parts.append(
            f"For 1 prompt it is not; its certified upper bound is {bound}."
            if len(rest) == 1
            else f"For {len(rest)} prompts it is not; each has a certified upper bound of at most {bound}."
        )
    if failed:
        parts.append(f"{failed} {'prompt' if failed == 1 else 'prompts'} failed, without a result.")
    return " ".join(parts)
