"""Figures of the prompts' section.

forest        which prompts are risky, and how sure is that
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tailrisk.records import Status
from tailrisk.report.figures import WIDTH, decades, prompt_axis
from tailrisk.report.svg import figure, ink, to_svg
from tailrisk.report.tables import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def forest(listed: Sequence[Row], plain: Mapping[str, float]) -> str:
    """Estimates with working (thick) and certified (thin) intervals on a logarithmic axis; crosses: ``plain``, the
    share of harm among the target's own draws, of the prompts that have some."""
    shown = list(listed)
    ends = [v for r in shown for v in (r.estimate, *r.certified, *(r.working or ()))]
    positive = [v for v in (*ends, *plain.values()) if v > 0]
    low = max(min(positive, default=1e-6) / 2, 1e-12)
    with figure(WIDTH, 1.1 + 0.27 * len(shown)) as (drawn, (ax,)):
        for y, r in enumerate(shown):
            _forest_row(ax, y, r, low)
            if plain.get(r.prompt_id, 0.0) > 0:
                ax.plot([plain[r.prompt_id]], [y], marker="x", color=ink("ink"), markersize=6, markeredgewidth=1.4,
                        linestyle="none", zorder=4)  # fmt: skip
        ax.set_xscale("log")
        decades(ax.xaxis)
        ax.set_xlim(low, 1.5)
        ax.grid(axis="x", linewidth=0.6)
        ax.set_xlabel("probability of the event for one answer")
        prompt_axis(ax, shown)
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
