"""Figures of the validity section.

weights       is any draw carrying the estimate
diagnostics   may the numbers be trusted, prompt by prompt
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tailrisk.records import FloatArray, Status
from tailrisk.report.figures import WIDTH, decades, prompt_axis
from tailrisk.report.svg import figure, ink, to_svg
from tailrisk.report.tables import Row

BINS = 60


class WeightCounts(NamedTuple):
    """Draws by weight, as powers of ten: ``edges`` [BINS + 1], counts [BINS] of all and of the harmful ones. ``bound``:
    the largest weight that an uncorrected draw can have."""

    edges: FloatArray
    everything: list[int]
    harmful: list[int]
    bound: float | None

    @property
    def rows(self) -> list[tuple[float, float, int, int]]:
        """The bins that hold draws."""
        edges = [round(e, 4) for e in self.edges.tolist()]
        found = zip(edges[:-1], edges[1:], self.everything, self.harmful, strict=True)
        return [row for row in found if row[2] or row[3]]


def weight_counts(everything: FloatArray, harmful: FloatArray, bound: float | None) -> WeightCounts:
    """Histogram of natural-log weights; those of zero are left out, those below 1e-16 are put there."""
    finite = everything[np.isfinite(everything)] / math.log(10)
    hits = harmful[np.isfinite(harmful)] / math.log(10)
    low = max(float(finite.min(initial=-1.0)), -16.0)
    high = max(float(finite.max(initial=0.0)), math.log10(bound) if bound else 0.0) + 0.2
    edges = np.linspace(low, high, BINS + 1)
    counts = [np.histogram(np.clip(values, low, high), edges)[0].tolist() for values in (finite, hits)]
    return WeightCounts(edges, counts[0], counts[1], bound)


def weights(counted: WeightCounts) -> str:
    """All draws and harmful ones by the power of ten of their weight."""
    edges, bound = counted.edges, counted.bound
    with figure(WIDTH, 2.8) as (drawn, (ax,)):
        ax.stairs(counted.everything, edges, fill=True, color=ink("grey"), alpha=0.55,
                  label=f"all draws ({sum(counted.everything):,})")  # fmt: skip
        if any(counted.harmful):
            ax.stairs(counted.harmful, edges, linewidth=1.8, color=ink("vermilion"),
                      label=f"harmful draws ({sum(counted.harmful):,})")  # fmt: skip
        if bound:
            ax.axvline(math.log10(bound), color=ink("blue"), linestyle="--", linewidth=1.2,
                       label=f"largest possible, {bound:.3g}")  # fmt: skip
        ax.set_yscale("log")
        decades(ax.yaxis)
        ax.set_ylim(bottom=0.7)
        ax.set_xlabel("weight of a draw (power of ten)")
        ax.set_ylabel("draws")
        ax.grid(axis="y", linewidth=0.6)
        ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=9)
        return to_svg(drawn, "weights", "Histogram of the weights of all draws and of harmful draws")


def diagnostics(listed: Sequence[Row]) -> str:
    """ESS of the hits, share of the heaviest hit, and mean weight with three standard errors."""
    shown = list(listed)
    with figure(WIDTH, 1.1 + 0.24 * len(shown), 3, share_y=True) as (drawn, (left, middle, right)):
        for y, r in enumerate(shown):
            unreliable = r.status is Status.UNRELIABLE
            colour = ink("vermilion" if unreliable else "blue")
            bar: dict[str, Any] = (
                {"color": ink("page"), "edgecolor": colour, "hatch": "////"}
                if unreliable
                else {"color": colour}
            )
            if r.hits:
                left.barh(y, max(r.ess, 0.5), height=0.6, **bar)
                middle.barh(y, r.max_weight_share or 0.0, height=0.6, **bar)
            if r.mean_weight is not None:
                spread = 3 * (r.mean_weight_se or 0.0)
                right.errorbar(
                    r.mean_weight,
                    y,
                    xerr=spread,
                    fmt="s" if unreliable else "o",
                    markersize=4,
                    linewidth=1.3,
                    color=colour,
                )
        left.set_xscale("log")
        decades(left.xaxis)
        left.set_xlim(left=0.5)
        left.set_xlabel("effective number of hits")
        middle.set_xlim(0, 1)
        middle.set_xticks([0, 0.5, 1], ["0", "50%", "100%"])
        right.locator_params(axis="x", nbins=4)
        middle.set_xlabel("share of the heaviest hit")
        right.axvline(1.0, color=ink("muted"), linewidth=1.0)
        right.set_xlabel("mean weight ± 3 standard errors")
        for ax in (left, middle, right):
            ax.grid(axis="x", linewidth=0.6)
            prompt_axis(ax, shown)
        for ax in (middle, right):
            ax.tick_params(axis="y", labelleft=False)
        return to_svg(drawn, "diagnostics", "Diagnostics of the weights of each prompt")
