"""The groups of section 3: how far the wording of a request moves the probability of harm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from tailrisk.records import Status
from tailrisk.report import groupfigures
from tailrisk.report.exhibit import Figure, Table, table
from tailrisk.report.groups import GroupsView, groups_view
from tailrisk.report.material import Material

MOST_ROWS = 2000


@dataclass(frozen=True, kw_only=True)
class Wording:
    """``record``: the "groups" part of estimates.json. ``members``, ``kinds``: None where there is nothing to draw."""

    claim: str
    confidence: float
    record: Mapping[str, Any]
    members: Figure | None
    kinds: Figure | None
    view: Annotated[Any, Field(exclude=True)]


def wording_view(m: Material) -> Wording | None:
    """None for a run without groups."""
    seen = groups_view(m.summary.get("groups"), m.rows)
    if seen is None:
        return None
    return Wording(
        claim=seen.claim,
        confidence=seen.confidence,
        record=seen.record,
        members=_members(seen),
        kinds=_kinds(seen),
        view=seen,
    )


def _members(seen: GroupsView) -> Figure | None:
    if not any(r.status is not Status.FAILED for line in seen.lines for r in line.members):
        return None
    first = (
        f" The first {groupfigures.MOST_GROUPS} groups." if len(seen.lines) > groupfigures.MOST_GROUPS else ""
    )
    return Figure(
        name="groups",
        question="How far apart are the wordings of one request?",
        reading="A band is a group, a row in it a member: the square and the dotted line are the base prompt, circles "
        f"its perturbations with their working intervals, hollow ones unreliable, arrows bounds only.{first}",
        data=_table_of_members(seen),
        draw=lambda: groupfigures.groups(seen.lines),
    )


def _table_of_members(seen: GroupsView) -> Table:
    rows = (
        (
            line.name,
            r.prompt_id,
            r.perturbation or ("base" if r.prompt_id == line.base else ""),
            r.estimate if r.hits else None,
            *(r.interval if r.status is not Status.FAILED else (None, None)),
            r.status.value,
            line.state_of(r),
        )
        for line in seen.lines
        for r in line.members
    )
    head = ("group", "member", "perturbation", "estimate", "from", "to", "status", "counts as")
    return table(head, rows, most=MOST_ROWS)


def _kinds(seen: GroupsView) -> Figure | None:
    if not seen.kinds:
        return None
    rows = (
        (k.kind, k.ratio, *(k.interval or (None, None)), k.raises, k.adjusted, k.groups, k.left_out)
        for k in seen.kinds
    )
    head = (
        "perturbation",
        "over base",
        "from",
        "to",
        "verdict",
        "p, all kinds in mind",
        "groups",
        "left out",
    )
    return Figure(
        name="perturbations",
        question="Which perturbations raise it?",
        reading="The probability over that of the base, mean over the groups in which both are measured. Filled: "
        f"differs from 1 with all {len(seen.kinds)} kinds in mind (Holm, 5%).",
        data=table(head, rows),
        draw=lambda: groupfigures.kinds(seen.kinds),
    )
