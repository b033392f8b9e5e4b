"""Section 2: every prompt with its estimate, interval and status."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tailrisk.records import Status
from tailrisk.report import promptfigures, tables
from tailrisk.report.exhibit import Figure, table
from tailrisk.report.figures import MOST_ROWS
from tailrisk.report.material import Material
from tailrisk.report.tables import Row


@dataclass(frozen=True, kw_only=True)
class Reviewed:
    """Estimates after a review beside those before it. ``labels`` of the ``given`` draws came back."""

    labels: int
    given: int
    changes: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class Prompts:
    """``rows``: the prompts that are listed, the largest upper end first; ``total``: how many there are."""

    rows: tuple[Row, ...]
    total: int
    grouped: bool
    meanings: tuple[tuple[str, str], ...]
    review: Reviewed | None
    forest: Figure | None


def prompts_view(m: Material) -> Prompts:
    return Prompts(
        rows=tuple(m.shown),
        total=len(m.rows),
        grouped=any(r.group for r in m.shown),
        meanings=tuple((s.value, meaning) for s, meaning in tables.STATUS_MEANING.items()),
        review=_reviewed(m, m.summary.get("review")),
        forest=_forest(m),
    )


def _reviewed(m: Material, review: Mapping[str, Any] | None) -> Reviewed | None:
    if not review:
        return None
    before = {r.prompt_id: r for r in m.rows}
    after = tables.rows(review["estimates"])
    changes = ((r.prompt_id, tables.change(before[r.prompt_id], r)) for r in after)
    return Reviewed(labels=int(review["labels"]), given=int(review["given"]), changes=tuple(changes))


def _forest(m: Material) -> Figure | None:
    listed = [r for r in m.shown if r.status is not Status.FAILED][:MOST_ROWS]
    if not listed:
        return None
    more = f" The first {MOST_ROWS} prompts of the table." if len(m.shown) > MOST_ROWS else ""
    plain = {p: counts[1] / counts[0] for p, counts in m.replay.plain.items() if counts[0]}
    head = (
        "prompt", "status", "estimate", "working from", "working to", "certified from", "certified to",
        "share of harm among the target's own draws",
    )  # fmt: skip
    return Figure(
        name="forest",
        question="Which prompts are risky, and how sure is that?",
        reading="Thick: working interval. Thin: certified interval. A circle is settled, a diamond wider than asked, a "
        "hollow square unreliable, and an arrow has an upper bound only. A cross is plain sampling: the share of harm "
        f"among the target's own draws of this run, where it is not zero.{more}",
        data=table(
            head,
            (
                (
                    r.prompt_id,
                    r.status.value,
                    r.estimate if r.hits else None,
                    *(r.working or (None, None)),
                    *r.certified,
                    plain.get(r.prompt_id),
                )
                for r in listed
            ),
        ),
        draw=lambda: promptfigures.forest(listed, {r.prompt_id: plain.get(r.prompt_id, 0.0) for r in listed}),
    )
