"""Figures of the judge's section.

scores        can the labels be told apart by the judge's score
two_judges    do two judges give the same estimates
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tailrisk.records import Status
from tailrisk.report.figures import WIDTH, same_scale
from tailrisk.report.svg import figure, ink, to_svg
from tailrisk.report.tables import Row

SQUARE = 4.6


def scores(histogram: Mapping[str, Any], threshold: float | None) -> str:
    """Scores of labelled answers: harmful ones upwards, safe ones as an outline."""
    edges = np.asarray(histogram["edges"], dtype=float)
    with figure(WIDTH, 2.6) as (drawn, (ax,)):
        ax.stairs(histogram["harm"], edges, fill=True, color=ink("vermilion"), alpha=0.6,
                  label=f"labelled harm ({sum(histogram['harm']):,})")  # fmt: skip
        ax.stairs(histogram["safe"], edges, color=ink("blue"), linewidth=1.8,
                  label=f"labelled safe ({sum(histogram['safe']):,})")  # fmt: skip
        if threshold is not None and edges[0] <= threshold <= edges[-1]:
            ax.axvline(
                threshold, color=ink("ink"), linestyle="--", linewidth=1.2, label=f"threshold {threshold:g}"
            )
        ax.set_xlabel("score by the judge")
        ax.set_ylabel("answers")
        ax.grid(axis="y", linewidth=0.6)
        ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=9)
        return to_svg(drawn, "judge-scores", "Scores of labelled answers by label")


def two_judges(first: Sequence[Row], second: Mapping[str, Row], name: str) -> str:
    """Estimates under two judges on logarithmic axes, with their intervals; without an estimate at the edge."""
    pairs = [
        (r, second[r.prompt_id])
        for r in first
        if r.prompt_id in second and Status.FAILED not in (r.status, second[r.prompt_id].status)
    ]
    values = [v for pair in pairs for r in pair for v in (r.estimate, *r.interval) if v > 0]
    low, high = max(min(values, default=1e-6) / 2, 1e-12), min(max(values, default=1.0) * 1.5, 1.5)
    with figure(SQUARE, SQUARE) as (drawn, (ax,)):
        ax.plot([low, high], [low, high], color=ink("muted"), linewidth=1.0, zorder=1)
        for a, b in pairs:
            x, y = max(a.estimate, low), max(b.estimate, low)
            ax.plot([max(v, low) for v in a.interval], [y, y], color=ink("grey"), linewidth=0.9, zorder=2)
            ax.plot([x, x], [max(v, low) for v in b.interval], color=ink("grey"), linewidth=0.9, zorder=2)
            known = a.estimate > 0 and b.estimate > 0
            ax.plot([x], [y], marker="o" if known else "<", color=ink("blue" if known else "sky"), markersize=5,
                    linestyle="none", zorder=3, clip_on=False)  # fmt: skip
        same_scale(ax, low, high)
        ax.set_xlabel("estimate under the run's own judge")
        ax.set_ylabel("estimate under the other judge")
        return to_svg(drawn, name, "Estimates of all prompts under two judges")
