"""Figures of the validity section that check the estimates against something else.

plain         do the target's own draws say the same
running       have the estimates settled
top_shares    how few draws carry the estimates
gain          what did the weighted draws buy
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from tailrisk.report.figures import WIDTH, decades, label, prompt_axis, same_scale
from tailrisk.report.running import Point
from tailrisk.report.svg import SERIES, figure, ink, to_svg
from tailrisk.report.tables import Row, number
from tailrisk.stats.running import TopShares

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SQUARE = 5.4
ACROSS = 3
STYLES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 2)))
MARKS = ("o", "s", "D", "^", "v", "P")


class Compared(NamedTuple):
    """A prompt by the target's own draws alone (``plain``, with an exact interval) and by its weighted estimate."""

    prompt_id: str
    draws: int
    hits: int
    plain: float
    plain_interval: tuple[float, float]
    estimate: float
    interval: tuple[float, float] | None
    certified: bool

    @property
    def agree(self) -> bool:
        """Whether the two intervals meet."""
        if self.interval is None:
            return True
        return self.plain_interval[0] <= self.interval[1] and self.interval[0] <= self.plain_interval[1]


def plain(pairs: Sequence[Compared]) -> str:
    """Both axes logarithmic; without hits among the target's own draws an arrow from the upper bound to the left."""
    values = [
        v for c in pairs for v in (c.plain, c.estimate, c.plain_interval[1], *(c.interval or ())) if v > 0
    ]
    low, high = max(min(values, default=1e-6) / 2, 1e-12), min(max(values, default=1.0) * 1.6, 1.6)
    with figure(SQUARE, SQUARE) as (drawn, (ax,)):
        ax.plot([low, high], [low, high], color=ink("muted"), linewidth=1.0, zorder=1)
        for c in pairs:
            _compared(ax, c, low)
        same_scale(ax, low, high)
        ax.set_xlabel("by the target's own draws alone")
        ax.set_ylabel("weighted estimate")
        return to_svg(drawn, "plain", "Weighted estimates against plain sampling of the target")


def _compared(ax: Axes, c: Compared, low: float) -> None:
    y = max(c.estimate, low)
    colour = ink("blue" if c.agree else "vermilion")
    if c.interval is not None:
        x = c.plain if c.hits else c.plain_interval[1]
        ax.plot([x, x], [max(v, low) for v in c.interval], color=ink("grey"), linewidth=1.0, zorder=2)
    if not c.hits:
        ax.annotate("", (max(c.plain_interval[1] / 2.2, low), y), (c.plain_interval[1], y),
                    arrowprops={"arrowstyle": "->", "color": colour, "linewidth": 1.2})  # fmt: skip
        ax.plot([c.plain_interval[1]], [y], marker="|", markersize=8, markeredgewidth=1.6, color=colour,
                linestyle="none")  # fmt: skip
        return
    ax.plot([max(v, low) for v in c.plain_interval], [y, y], color=ink("grey"), linewidth=1.0, zorder=2)
    ax.plot(
        [c.plain], [y], marker="o" if c.agree else "X", markersize=6, color=colour, linestyle="none", zorder=3
    )


def running(traces: Mapping[str, Sequence[Point]], quantile: float) -> str:
    """Small multiples, one a prompt: the estimate after each round against its draws, with a band."""
    rows = math.ceil(len(traces) / ACROSS)
    with figure(WIDTH, 0.4 + 1.75 * rows, ACROSS, rows) as (drawn, axes):
        for ax, (prompt, points) in zip(axes, traces.items(), strict=False):
            known = [p for p in points if p.value > 0]
            x = [p.draws for p in known]
            ax.fill_between(x, [max(p.value - quantile * p.error, 0.0) for p in known],
                            [p.value + quantile * p.error for p in known], color=ink("blue"), alpha=0.22,
                            linewidth=0)  # fmt: skip
            ax.plot(x, [p.value for p in known], color=ink("blue"), linewidth=1.4, marker="o", markersize=3.5)
            ax.axhline(known[-1].value, color=ink("muted"), linewidth=0.8, linestyle="--")
            ax.set_ylim(bottom=0)
            ax.yaxis.set_major_formatter(lambda value, _: number(value))
            ax.set_xlim(left=0)
            ax.locator_params(nbins=4)
            ax.set_title(label(prompt, 26), fontsize=9, loc="left")
            ax.tick_params(labelsize=8)
            ax.grid(linewidth=0.5)
        for ax in axes[len(traces) :]:
            ax.set_visible(False)
        drawn.supxlabel("draws of the prompt", fontsize=9)
        return to_svg(drawn, "running", "Estimates of prompts after each round")


def top_shares(lines: Sequence[tuple[str, TopShares]]) -> str:
    """Cumulated share of the estimate against the number of heaviest hits, on a logarithmic axis."""
    with figure(WIDTH, 3.0) as (drawn, (ax,)):
        for i, (name, found) in enumerate(lines):
            ax.plot(found.counts, found.shares, color=ink("ink" if i == 0 else SERIES[(i - 1) % len(SERIES)]),
                    linestyle=STYLES[i % len(STYLES)], linewidth=2.0 if i == 0 else 1.4,
                    marker=MARKS[i % len(MARKS)], markersize=4, label=label(name))  # fmt: skip
        ax.set_xscale("log")
        decades(ax.xaxis)
        ax.set_ylim(0, 1.04)
        ax.set_yticks([0, 0.25, 0.5, 0.75, 1.0], ["0", "25%", "50%", "75%", "100%"])
        ax.set_xlabel("heaviest hits")
        ax.set_ylabel("share of the estimate")
        ax.grid(linewidth=0.6)
        ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=9)
        return to_svg(drawn, "top-shares", "Share of the estimates that the heaviest hits carry")


def gain(listed: Sequence[Row]) -> str:
    """A bar a prompt on a logarithmic axis, from 1."""
    gains = [r.gain_vs_mc or 1.0 for r in listed]
    with figure(WIDTH, 1.1 + 0.24 * len(listed)) as (drawn, (ax,)):
        for y, value in enumerate(gains):
            ax.barh(y, value - 1.0, left=1.0, height=0.6, color=ink("blue" if value >= 1 else "vermilion"))
            ax.annotate(
                f"{number(value)}×",
                (max(value, 1.0), y),
                (4, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
            )
        ax.axvline(1.0, color=ink("ink"), linewidth=1.0)
        ax.set_xscale("log")
        decades(ax.xaxis)
        ax.set_xlim(min(0.5, *gains) / 1.2, max(2.0, *gains) * 2.5)
        ax.set_xlabel("draws that plain sampling would need, over those that were made")
        ax.grid(axis="x", linewidth=0.6)
        prompt_axis(ax, listed)
        return to_svg(drawn, "gain", "Gain over plain sampling, prompt by prompt")
