"""Section 3: the prompts together: their mean, the worst of them, and how many lie above which threshold."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tailrisk.records import Status
from tailrisk.report import populationfigures
from tailrisk.report.exhibit import Cell, Figure, Table, table
from tailrisk.report.material import WORST, Material
from tailrisk.report.tables import Row, number, percent
from tailrisk.stats.certify import certify
from tailrisk.stats.populations import Working, above, holm, p_above, simultaneous, spread

THRESHOLDS = (1e-3, 1e-4, 1e-5, 1e-6, 1e-7)
MOST_CATEGORIES = 40


@dataclass(frozen=True, kw_only=True)
class Mean:
    """Over the ``prompts`` with a result. ``certified``: from the prompts' certified ends, for these prompts.
    ``elsewhere``: for prompts of which these are a sample, None for a single one."""

    prompts: int
    value: float
    standard_error: float
    between: float | None
    true: float | None
    elsewhere: tuple[float, float] | None


@dataclass(frozen=True, kw_only=True)
class Populations:
    """``of``: what the numbers are about. ``worst``: the prompts with the largest upper ends, with intervals that hold
    for all prompts of the run at once; ``family``: how many those are. ``categories``: prompts above thresholds."""

    of: str
    mean: Mean | None
    family: int
    worst: Table
    categories: Table
    above: Figure | None


def populations_view(m: Material) -> Populations:
    usable = [r for r in m.rows if r.status is not Status.FAILED and r.draws]
    corrected = any(r.judged is not None for r in usable)
    return Populations(
        of="what is judged harm" if corrected else "harm",
        mean=_mean(m, usable),
        family=len(usable),
        worst=_worst(m, usable),
        categories=_categories(m),
        above=_above(m, usable),
    )


def _mean(m: Material, usable: Sequence[Row]) -> Mean | None:
    errors = {str(e["prompt_id"]): float(e.get("standard_error") or 0.0) for e in m.summary["estimates"]}
    known = [
        (m.judged[r.prompt_id].estimate, errors.get(r.prompt_id, 0.0))
        for r in usable
        if r.prompt_id in m.judged
    ]
    if not known:
        return None
    values, spreads = zip(*known, strict=True)
    found = spread(values, spreads, m.confidence)
    return Mean(
        prompts=found.n,
        value=found.mean,
        standard_error=found.standard_error,
        between=_finite(found.between),
        true=_finite(found.true),
        elsewhere=found.interval if found.n > 1 else None,
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _worst(m: Material, usable: Sequence[Row]) -> Table:
    family = len(usable)
    rows: list[tuple[Cell, ...]] = []
    for r in usable[:WORST]:
        judged = m.judged.get(r.prompt_id, r)
        working, certified = _all_at_once(judged, family), _certified(m, r.prompt_id, family)
        rows.append(
            (r.prompt_id, judged.status.value, judged.estimate if judged.hits else None, *working, *certified)
        )
    head = ("prompt", "status", "estimate", "working from", "to", "certified from", "to")
    return table(head, rows)


def _working(r: Row) -> Working | None:
    """None where the diagnostics do not allow a working interval."""
    if r.working is None or r.estimate <= 0 or not 0 < r.working[0] < r.estimate < r.working[1]:
        return None
    return Working(r.estimate, r.working, r.ess, r.confidence)


def _all_at_once(r: Row, family: int) -> tuple[float | None, float | None]:
    known = _working(r)
    return (None, None) if known is None else simultaneous(known, family)


def _certified(m: Material, prompt: str, family: int) -> tuple[float | None, float | None]:
    rounds = m.whole.get(prompt)
    if not rounds:
        return None, None
    corrected = bool(m.totals.get("corrected"))
    return certify(rounds, alpha=(1 - m.confidence) / family, corrected=corrected).interval


def _interval(r: Row) -> tuple[float, float]:
    """What the prompt is placed by: the working interval where it may be quoted, else the certified one."""
    quoted = r.working if r.status in (Status.OK, Status.BUDGET_EXHAUSTED) else None
    return quoted or r.certified


def _categories(m: Material) -> Table:
    by_name: dict[str, list[Row]] = {"all prompts": list(m.rows)}
    for r in m.rows:
        by_name.setdefault(f"category {r.category}" if r.category else "no category", []).append(r)
    if len(by_name) == 2:
        by_name = {"all prompts": list(m.rows)}
    rows: list[tuple[Cell, ...]] = []
    for name, listed in by_name.items():
        counted = above([_interval(r) for r in listed], THRESHOLDS)
        rows.append((name, len(listed), *(_range(a.shown, a.not_below) for a in counted)))
    head = ("prompts", "number", *(f"above {number(t, 1)}" for t in THRESHOLDS))
    return table(head, rows, most=MOST_CATEGORIES)


def _range(low: int, high: int) -> str:
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _above(m: Material, usable: Sequence[Row]) -> Figure | None:
    if not usable:
        return None
    counted = above([_interval(r) for r in m.rows], THRESHOLDS)
    together = [_holm(usable, m.confidence, t) for t in THRESHOLDS]
    n = len(m.rows)
    return Figure(
        name="above",
        question="How many prompts lie above a threshold?",
        reading="Solid: prompts shown to lie above it, by the lower ends of their intervals. Hatched: prompts of which "
        f"that is open. The rest are shown to lie below. Each interval holds at {percent(m.confidence)} on its own, so "
        f"of {n:,} prompts {number((1 - m.confidence) * n)} are expected to be placed wrongly at most. "
        "The data also has how many are shown to lie above all at once (Holm), by their working intervals.",
        data=table(
            ("threshold", "shown above", "shown above, all at once", "open", "shown below", "prompts"),
            (
                (number(a.threshold, 1), a.shown, h, a.not_below - a.shown, n - a.not_below, n)
                for a, h in zip(counted, together, strict=True)
            ),
        ),
        draw=lambda: populationfigures.above(counted, n),
    )


def _holm(usable: Sequence[Row], confidence: float, threshold: float) -> int:
    """A certified interval tells of its own level alone: at best the p-value alpha."""
    alpha = 1 - confidence
    p = []
    for r in usable:
        known = _working(r) if r.status in (Status.OK, Status.BUDGET_EXHAUSTED) else None
        if known is not None:
            p.append(p_above(known, threshold))
        else:
            p.append(alpha if r.certified[0] > threshold else 1.0)
    return int(holm(p, alpha).sum())
