"""The groups of a run for its report: prompts that ask for the same, and how far their wording moves the probability.

A spread is the standard deviation of the natural logarithm of the probability; it is shown as a factor, e to its power.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tailrisk.records import Status
from tailrisk.report.clean import visible
from tailrisk.report.tables import Row, number, percent

Factor = tuple[float, float, float]
VERDICTS = {
    "sensitive": "sensitive",
    "not shown": "no spread shown",
    "unknown": "cannot be told",
}
MEANINGS = {
    "sensitive": "the members' probabilities differ by more than the noise of their estimates, or their certified "
    "intervals do not meet",
    "not shown": "what the estimates differ by may be noise; the spread may still be as large as the upper end",
    "unknown": "fewer than two members have an estimate that may be quoted",
}


class Line(NamedTuple):
    """A group. ``members``: base first, then as they came. ``spread`` and ``worst`` as factors with their intervals;
    ``at_least``: what certified intervals alone say of the worst over the base, or of the highest over the lowest."""

    name: str
    members: tuple[Row, ...]
    base: str | None
    verdict: str
    measured: int
    bounded: int
    left_out: int
    spread: Factor | None
    p_value: float | None
    worst: Factor | None
    worst_id: str
    worst_kind: str
    at_least: float | None
    certified_ratio: float | None

    @property
    def verdict_said(self) -> str:
        return VERDICTS[self.verdict]

    @property
    def meaning(self) -> str:
        return MEANINGS[self.verdict]

    def state_of(self, r: Row) -> str:
        """How a member counts: measured, bound only, or left out."""
        if r.status in (Status.OK, Status.BUDGET_EXHAUSTED):
            return "measured"
        return "bound only" if r.status is Status.BOUND_ONLY else f"left out ({r.status.value})"

    @property
    def spread_said(self) -> str:
        """E.g. ``×2.3 (1.4 to 4.1)``."""
        return "-" if self.spread is None else said(self.spread)

    @property
    def worst_said(self) -> str:
        if self.worst is not None:
            return said(self.worst)
        return "cannot be told" if self.at_least is None else f"at least ×{number(self.at_least)} (certified)"


class Kind(NamedTuple):
    """A perturbation over groups. ``ratio`` to the base with its interval; the interval is None with one group."""

    kind: str
    groups: int
    left_out: int
    ratio: float
    interval: tuple[float, float] | None
    between: float | None
    adjusted: float | None

    @property
    def between_factor(self) -> float:
        return math.exp(min(self.between or 0.0, 500.0))

    @property
    def raises(self) -> str:
        """What may be said of it, with all kinds in mind."""
        if self.adjusted is None:
            return "one group only"
        if self.adjusted > 0.05:
            return "not shown to matter"
        return "raises the probability" if self.ratio > 1 else "lowers the probability"


class GroupsView(NamedTuple):
    confidence: float
    lines: tuple[Line, ...]
    kinds: tuple[Kind, ...]
    record: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """The "groups" part of estimates.json as it is, with the sentence that sums it up."""
        return {"claim": self.claim, **self.record}

    @property
    def counts(self) -> Counter[str]:
        return Counter(line.verdict for line in self.lines)

    @property
    def claim(self) -> str:
        """One or two sentences that are true of every group."""
        counts, total = self.counts, len(self.lines)
        parts = [
            f"In {counts['sensitive']} of {total} {'group' if total == 1 else 'groups'} harmless rewording moves the "
            "probability by more than chance"
        ]
        if counts["not shown"]:
            parts.append(f"in {counts['not shown']} no spread is shown")
        if counts["unknown"]:
            parts.append(f"in {counts['unknown']} it cannot be told")
        text = "; ".join(parts) + "."
        widest = max(
            (x for x in self.lines if x.verdict == "sensitive" and x.spread), key=_low_of_spread, default=None
        )
        if widest is not None and widest.spread is not None:
            text += f" The surest spread is a factor of {said(widest.spread)[1:]}, in {widest.name}."
        return text


def groups_view(record: Mapping[str, Any] | None, listed: Sequence[Row]) -> GroupsView | None:
    """``record``: the part of estimates.json; None where there is none. ``listed``: rows of all prompts."""
    if not record or not record.get("groups"):
        return None
    rows = {r.prompt_id: r for r in listed}
    lines = [_line(one, rows) for one in record["groups"]]
    kinds = [_kind(one) for one in record.get("kinds", ())]
    return GroupsView(float(record["confidence"]), tuple(sorted(lines, key=_order)), tuple(kinds), record)


def said(factor: Factor) -> str:
    value, low, high = factor
    return f"×{number(value)} ({number(low)} to {number(high)})"


def _low_of_spread(line: Line) -> float:
    return line.spread[1] if line.spread is not None else 0.0


def _order(line: Line) -> tuple[int, float, str]:
    return (list(VERDICTS).index(line.verdict), -_low_of_spread(line), line.name)


def _line(one: Mapping[str, Any], rows: Mapping[str, Row]) -> Line:
    base = None if one["base"] is None else visible(str(one["base"]))
    members = [rows[i] for name in one["members"] if (i := visible(str(name))) in rows]
    spread, worst = one["spread"], one["worst"]
    working = worst["basis"] == "working"
    return Line(
        name=visible(str(one["group"])),
        members=tuple(sorted(members, key=lambda r: r.prompt_id != base)),
        base=base,
        verdict=one["verdict"],
        measured=one["measured"],
        bounded=one["bounded"],
        left_out=one["left_out"],
        spread=None if spread is None else _factors(spread),
        p_value=None if spread is None else spread["p_value"],
        worst=(worst["ratio"], worst["low"], worst["high"]) if working else None,
        worst_id=visible(str(worst["id"] or "")),
        worst_kind=visible(str(worst["kind"] or "")),
        at_least=worst["low"] if worst["basis"] == "certified" else None,
        certified_ratio=one["certified_ratio"],
    )


def _factors(spread: Mapping[str, float]) -> Factor:
    value, low, high = (math.exp(min(spread[key], 500.0)) for key in ("sd", "low", "high"))
    return value, low, high


def _kind(one: Mapping[str, Any]) -> Kind:
    known = one["low"] is not None
    return Kind(
        kind=visible(str(one["kind"])),
        groups=one["groups"],
        left_out=one["left_out"],
        ratio=one["ratio"],
        interval=(one["low"], one["high"]) if known else None,
        between=one["between"],
        adjusted=one["adjusted"],
    )


def in_words(line: Line, confidence: float) -> str:
    """One group for a terminal: name, verdict, spread, worst over base."""
    text = f"group {line.name}: {VERDICTS[line.verdict]}"
    if line.spread is not None:
        text += f", spread {line.spread_said}"
    if line.certified_ratio is not None:
        text += f", highest over lowest at least ×{number(line.certified_ratio)} (certified)"
    if line.worst is not None or line.at_least is not None:
        text += f", worst over base {line.worst_said}" + (f" by {line.worst_kind}" if line.worst_kind else "")
    return f"{text}; {line.measured} of {len(line.members)} members measured ({percent(confidence)})"
