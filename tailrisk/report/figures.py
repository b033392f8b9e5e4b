"""The figures of the report. Each answers one question and returns an ``<svg>`` element.

forest        which prompts are risky, and how sure is that
budget        where the draws went, round by round
weights       is any draw carrying the estimate
diagnostics   may the numbers be trusted, prompt by prompt
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from tailrisk.records import Status
from tailrisk.report.svg import SERIES, figure, ink, to_svg
from tailrisk.report.tables import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

    from tailrisk.records import FloatArray

WIDTH = 9.0
MOST_ROWS = 60
TOP_PROMPTS = 6
LABEL = 34


_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def _power_of_ten(value: float, _position: float) -> str:
    exponent = round(math.log10(value))
    return "1" if exponent == 0 else f"10{str(exponent).translate(_SUPERSCRIPT)}"


def decades(axis: Axis) -> None:
    """Plain-text tick labels for a logarithmic axis (mathematical text is switched off)."""
    axis.set_major_formatter(_power_of_ten)
    axis.set_minor_formatter("")


def _label(name: str) -> str:
    return name if len(name) <= LABEL else name[: LABEL - 1] + "…"


def _prompt_axis(ax: Axes, shown: Sequence[Row]) -> None:
    ax.set_yticks(range(len(shown)), [_label(r.prompt_id) for r in shown])
    ax.set_ylim(len(shown) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)


def forest(listed: Sequence[Row]) -> str:
    """Estimates with working (thick) and certified (thin) intervals on a logarithmic axis."""
    shown = [r for r in listed if r.status is not Status.FAILED][:MOST_ROWS]
    positive = [v for r in shown for v in (r.estimate, *r.certified, *(r.working or ())) if v > 0]
    low = max(min(positive, default=1e-6) / 2, 1e-12)
    with figure(WIDTH, 1.1 + 0.27 * len(shown)) as (drawn, (ax,)):
        for y, r in enumerate(shown):
            _forest_row(ax, y, r, low)
        ax.set_xscale("log")
        decades(ax.xaxis)
        ax.set_xlim(low, 1.5)
        ax.grid(axis="x", linewidth=0.6)
        ax.set_xlabel("probability of the event for one answer")
        _prompt_axis(ax, shown)
        return to_svg(drawn, "forest", "Estimates and intervals of all prompts")


def _forest_row(ax: Axes, y: int, r: Row, low: float) -> None:
    start, end = max(r.certified[0], low), r.certified[1]
    ax.plot([start, end], [y, y], color=ink("grey"), linewidth=1.2, solid_capstyle="butt", zorder=1)
    if r.status is Status.BOUND_ONLY:
        ax.plot([end], [y], marker="|", color=ink("sky"), markersize=9, markeredgewidth=2.2, linestyle="none")
        ax.plot(
            [low * 1.12], [y], marker="<", color=ink("sky"), markersize=6, linestyle="none", clip_on=False
        )
        return
    trusted = r.status in (Status.OK, Status.BUDGET_EXHAUSTED)
    colour = ink({Status.OK: "blue", Status.BUDGET_EXHAUSTED: "orange"}.get(r.status, "vermilion"))
    if r.working and trusted:
        ax.plot([max(r.working[0], low), r.working[1]], [y, y], color=colour, linewidth=4.2, alpha=0.55,
                solid_capstyle="butt", zorder=2)  # fmt: skip
    if r.estimate > 0:
        shape = {Status.OK: "o", Status.BUDGET_EXHAUSTED: "D"}.get(r.status, "s")
        ax.plot([r.estimate], [y], marker=shape, color=colour, markersize=5.5, linestyle="none", zorder=3,
                markerfacecolor=colour if trusted else ink("page"), markeredgewidth=1.4)  # fmt: skip


def budget(draws: Mapping[str, Sequence[int]], rounds: Sequence[int], *, first: str = "pilot") -> str:
    """Draws of each round, stacked by prompt: the most drawn ones by name, the others together.

    ``draws`` maps a prompt id to its draws in each of ``rounds``; ``first`` is what round 0 is called.
    """
    order = sorted(draws, key=lambda p: (-sum(draws[p]), p))
    top, rest = order[:TOP_PROMPTS], order[TOP_PROMPTS:]
    layers = [(_label(p), np.asarray(draws[p], dtype=float)) for p in top]
    if rest:
        others = np.sum([draws[p] for p in rest], axis=0, dtype=float)
        layers.append((f"the other {len(rest)}", others))
    with figure(WIDTH, 3.0) as (drawn, (ax,)):
        base = np.zeros(len(rounds))
        for i, (name, height) in enumerate(layers):
            colour = ink(SERIES[i]) if i < len(top) else ink("grey")
            ax.bar(range(len(rounds)), height, bottom=base, width=0.72, color=colour, label=name,
                   edgecolor=ink("page"), linewidth=0.3)  # fmt: skip
            base = base + height
        ax.set_xticks(range(len(rounds)), [first if r == 0 else str(r) for r in rounds])
        ax.set_xlim(-0.6, max(len(rounds), 4) - 0.4)
        ax.set_xlabel("round")
        ax.set_ylabel("draws")
        ax.grid(axis="y", linewidth=0.6)
        handles, labels = ax.get_legend_handles_labels()
        ax.legend(handles[::-1], labels[::-1], loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=9)
        return to_svg(drawn, "budget", "Draws by round and prompt")


def weights(everything: FloatArray, harmful: FloatArray, bound: float | None) -> str:
    """Histogram of natural-log weights (as powers of ten), all draws and harmful ones.

    ``bound`` is the largest weight that an uncorrected draw can have.
    """
    finite = everything[np.isfinite(everything)] / math.log(10)
    hits = harmful[np.isfinite(harmful)] / math.log(10)
    low = max(float(finite.min(initial=-1.0)), -16.0)
    high = max(float(finite.max(initial=0.0)), math.log10(bound) if bound else 0.0) + 0.2
    edges = np.linspace(low, high, 61)
    with figure(WIDTH, 2.8) as (drawn, (ax,)):
        ax.hist(np.clip(finite, low, high), bins=edges.tolist(), color=ink("grey"), alpha=0.55,
                label=f"all draws ({len(everything):,})")  # fmt: skip
        if len(hits):
            ax.hist(np.clip(hits, low, high), bins=edges.tolist(), histtype="step", linewidth=1.8,
                    color=ink("vermilion"), label=f"harmful draws ({len(harmful):,})")  # fmt: skip
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
    shown = [r for r in listed if r.status is not Status.FAILED][:MOST_ROWS]
    with figure(WIDTH, 1.1 + 0.24 * len(shown), 3, share_y=True) as (drawn, (left, middle, right)):
        for y, r in enumerate(shown):
            colour = ink("vermilion" if r.status is Status.UNRELIABLE else "blue")
            if r.hits:
                left.barh(y, max(r.ess, 0.5), color=colour, height=0.6)
                middle.barh(y, r.max_weight_share or 0.0, color=colour, height=0.6)
            if r.mean_weight is not None:
                spread = 3 * (r.mean_weight_se or 0.0)
                right.errorbar(
                    r.mean_weight, y, xerr=spread, fmt="o", markersize=4, linewidth=1.3, color=colour
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
            _prompt_axis(ax, shown)
        for ax in (middle, right):
            ax.tick_params(axis="y", labelleft=False)
        return to_svg(drawn, "diagnostics", "Diagnostics of the weights of each prompt")
