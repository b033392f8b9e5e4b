"""Figures of the budget's section.

allocation    where did the draws go, round by round, and what did they do for the widest interval
busy          were the workers busy, and how many draws a second came of it
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from tailrisk.report.clean import visible
from tailrisk.report.figures import WIDTH, label
from tailrisk.report.running import Width
from tailrisk.report.svg import SERIES, figure, ink, to_svg
from tailrisk.report.timeline import Timeline

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TOP_PROMPTS = 6
HATCHES = ("", "///", "...", "\\\\\\", "xxx", "|||")


def allocation(
    draws: Mapping[str, Sequence[int]],
    rounds: Sequence[int],
    widths: Sequence[Width],
    *,
    first: str = "pilot",
) -> str:
    """Draws of each round, stacked by prompt: the most drawn ones by name, the others together; below it the largest
    and the median relative half-width after each round, where ``widths`` has them.

    ``draws`` maps a prompt id to its draws in each of ``rounds``; ``first`` is what round 0 is called.
    """
    with figure(WIDTH, 5.0 if widths else 3.0, 1, 2 if widths else 1, share_x=True,
                ratios=(3, 2) if widths else None) as (drawn, axes):  # fmt: skip
        _stacked(axes[0], draws, rounds)
        if widths:
            place = [rounds.index(w.round) for w in widths]
            axes[1].plot(place, [w.largest for w in widths], color=ink("vermilion"), marker="s", markersize=4,
                         linewidth=1.6, label="largest")  # fmt: skip
            axes[1].plot(place, [w.median for w in widths], color=ink("blue"), marker="o", markersize=4,
                         linewidth=1.6, linestyle="--", label="median")  # fmt: skip
            axes[1].set_ylim(bottom=0)
            axes[1].set_ylabel("half-width /\nestimate")
            axes[1].grid(axis="y", linewidth=0.6)
            axes[1].legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=9)
        last = axes[-1]
        every = max(1, len(rounds) // 20)
        ticks = range(0, len(rounds), every)
        last.set_xticks(ticks, [first if rounds[i] == 0 else str(rounds[i]) for i in ticks])
        last.set_xlim(-0.6, max(len(rounds), 4) - 0.4)
        last.set_xlabel("round")
        return to_svg(
            drawn, "allocation", "Draws by round and prompt, and the widest interval after each round"
        )


def _stacked(ax: Axes, draws: Mapping[str, Sequence[int]], rounds: Sequence[int]) -> None:
    order = sorted(draws, key=lambda p: (-sum(draws[p]), p))
    top, rest = order[:TOP_PROMPTS], order[TOP_PROMPTS:]
    layers = [(label(visible(p)), np.asarray(draws[p], dtype=float)) for p in top]
    if rest:
        layers.append((f"the other {len(rest):,}", np.sum([draws[p] for p in rest], axis=0, dtype=float)))
    base = np.zeros(len(rounds))
    for i, (name, height) in enumerate(layers):
        own = i < len(top)
        ax.bar(range(len(rounds)), height, bottom=base, width=0.72, color=ink(SERIES[i] if own else "grey"),
               label=name, edgecolor=ink("page"), linewidth=0.3, hatch=HATCHES[i] if own else "")  # fmt: skip
        base = base + height
    ax.set_ylabel("draws")
    ax.grid(axis="y", linewidth=0.6)
    handles, labels = ax.get_legend_handles_labels()
    ax.legend(handles[::-1], labels[::-1], loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=9)


def busy(found: Timeline) -> str:
    """A lane a worker, darker the busier; below it draws a second. Dotted: where the run was taken up again."""
    scale, unit = _unit(float(found.edges[-1]))
    edges, lanes = found.edges / scale, found.lanes
    with figure(
        WIDTH, 2.3 + 0.26 * len(lanes), 1, 2, share_x=True, ratios=(0.3 + 0.26 * len(lanes), 1.4)
    ) as (drawn, axes):
        top, bottom = axes
        for y, lane in enumerate(lanes):
            for begin, end, level in _runs(lane.busy):
                top.barh(y, edges[end] - edges[begin], left=edges[begin], height=0.3 + 0.4 * level, color=ink("blue"),
                         alpha=0.25 + 0.7 * level, linewidth=0)  # fmt: skip
        top.set_yticks(
            range(len(lanes)), [f"{label(visible(lane.name), 24)}  {lane.share:.0%}" for lane in lanes]
        )
        top.set_ylim(len(lanes) - 0.4, -0.6)
        top.tick_params(axis="y", length=0, labelsize=9)
        top.tick_params(axis="x", length=0)
        bottom.stairs(found.rate, edges, color=ink("green"), linewidth=1.6, baseline=None)
        bottom.set_ylim(bottom=0)
        bottom.set_ylabel("draws\na second")
        bottom.set_xlabel(f"{unit} of work, pauses between sittings left out")
        bottom.grid(axis="y", linewidth=0.6)
        for ax in axes:
            for sitting in found.sittings[1:]:
                ax.axvline(sitting.begin / scale, color=ink("muted"), linestyle=":", linewidth=1.2)
        bottom.set_xlim(edges[0], edges[-1])
        return to_svg(drawn, "busy", "Busy time of the workers and draws a second over time")


def _unit(seconds: float) -> tuple[float, str]:
    return (1.0, "seconds") if seconds < 180 else (60.0, "minutes") if seconds < 10_800 else (3600.0, "hours")


def _runs(values: np.ndarray) -> list[tuple[int, int, float]]:
    """Steps side by side that are about as busy, as (first, beyond, level); idle ones are left out."""
    levels = np.ceil(np.round(values, 3) * 4) / 4
    edges = np.flatnonzero(np.diff(levels)) + 1
    starts, ends = np.concatenate([[0], edges]), np.concatenate([edges, [len(levels)]])
    return [(int(a), int(b), float(levels[a])) for a, b in zip(starts, ends, strict=True) if levels[a] > 0]
