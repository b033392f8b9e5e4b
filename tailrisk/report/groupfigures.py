"""Figures of the groups' section.

groups   how far apart are the wordings of one request
kinds    which perturbations raise or lower the probability
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tailrisk.records import Status
from tailrisk.report.figures import WIDTH, decades
from tailrisk.report.groups import VERDICTS, Kind, Line
from tailrisk.report.svg import figure, ink, to_svg
from tailrisk.report.tables import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_GROUPS = 25
MOST_MEMBERS = 30
MOST_KINDS = 40
LABEL = 30
_STEPS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)


def groups(lines: Sequence[Line]) -> str:
    """Each group a band, in it a row a member; the base is a filled square with a line through the band, an
    unreliable member is hollow, and one with a bound only is an arrow at its upper end."""
    shown = [x for x in lines if any(r.status is not Status.FAILED for r in x.members)][:MOST_GROUPS]
    bands = [[r for r in x.members if r.status is not Status.FAILED][:MOST_MEMBERS] for x in shown]
    values = [v for band in bands for r in band for v in (*(r.working or ()), r.estimate) if v > 0]
    values += [r.certified[1] for band in bands for r in band if r.status is Status.BOUND_ONLY]
    low, high = max(min(values, default=1e-6) / 2, 1e-12), min(max(values, default=1.0) * 2, 1.5)
    height = sum(len(band) + 2 for band in bands)
    with figure(WIDTH, 1.0 + 0.105 * height) as (drawn, (ax,)):
        top, ticks = 0.0, []
        for i, (line, band) in enumerate(zip(shown, bands, strict=True)):
            bottom = top + len(band) + 2
            if i % 2 == 0:
                ax.axhspan(top, bottom, color=ink("line"), alpha=0.35, linewidth=0)
            base = next((r for r in band if r.prompt_id == line.base), None)
            if base is not None and _quoted(base):
                ax.plot([base.estimate, base.estimate], [top + 0.4, bottom - 0.4], color=ink("muted"), linewidth=0.9,
                        linestyle=":", zorder=1)  # fmt: skip
            for y, r in enumerate(band):
                _member(ax, top + 1.5 + y, r, (low, high), base=r is base)
            middle = (top + bottom) / 2
            ticks.append((middle, line.name if len(line.name) <= LABEL else line.name[: LABEL - 1] + "…"))
            ax.text(
                1.015, middle, _beside(line), transform=ax.get_yaxis_transform(), va="center", fontsize=8.5
            )
            top = bottom
        ax.set_xscale("log")
        decades(ax.xaxis)
        ax.set_xlim(low, high)
        ax.set_ylim(top, 0)
        ax.set_yticks([y for y, _ in ticks], [name for _, name in ticks])
        ax.tick_params(axis="y", length=0)
        ax.grid(axis="x", linewidth=0.6)
        ax.set_xlabel("probability of the event for one answer")
        return to_svg(
            drawn, "groups", "Estimates and intervals of all members of each group, with their spread"
        )


def _quoted(r: Row) -> bool:
    return r.status in (Status.OK, Status.BUDGET_EXHAUSTED) and r.estimate > 0


def _beside(line: Line) -> str:
    said = VERDICTS[line.verdict]
    return said if line.spread is None else f"{said}\nspread {line.spread_said}"


def _member(ax: Axes, y: float, r: Row, limits: tuple[float, float], *, base: bool) -> None:
    low, high = limits
    colour = ink("vermilion" if base else "blue")
    if r.status is Status.BOUND_ONLY:
        ax.plot(
            [min(r.certified[1], high)], [y], marker="<", color=ink("sky"), markersize=4.5, linestyle="none"
        )
        return
    trusted = _quoted(r)
    if trusted and r.working:
        ax.plot([max(r.working[0], low), min(r.working[1], high)], [y, y], color=colour, linewidth=1.4, alpha=0.6,
                solid_capstyle="butt", zorder=2)  # fmt: skip
    if r.estimate > 0:
        ax.plot([r.estimate], [y], marker="s" if base else "o", color=colour, markersize=4.2, linestyle="none",
                markerfacecolor=colour if trusted else ink("page"), markeredgewidth=1.1, zorder=3)  # fmt: skip


def kinds(effects: Sequence[Kind]) -> str:
    """Ratio to the base over groups, with its interval; filled where it differs from 1 with all kinds in mind."""
    shown = list(effects)[:MOST_KINDS]
    ends = [v for k in shown for v in (k.ratio, *(k.interval or ())) if v > 0]
    low, high = max(min([*ends, 0.5]) / 1.3, 1e-3), min(max([*ends, 2.0]) * 1.3, 1e3)
    with figure(WIDTH * 0.75, 1.0 + 0.25 * len(shown)) as (drawn, (ax,)):
        ax.axvline(1.0, color=ink("muted"), linewidth=1.0)
        for y, k in enumerate(shown):
            clear = k.adjusted is not None and k.adjusted <= 0.05
            colour = ink("blue" if clear else "grey")
            if k.interval:
                ax.plot([max(k.interval[0], low), min(k.interval[1], high)], [y, y], color=colour, linewidth=3.4,
                        alpha=0.55, solid_capstyle="butt")  # fmt: skip
            ax.plot([k.ratio], [y], marker="o", color=colour, markersize=5.5, linestyle="none",
                    markerfacecolor=colour if clear else ink("page"), markeredgewidth=1.4)  # fmt: skip
        ax.set_xscale("log")
        ax.set_xlim(low, high)
        every = (0.001, 0.01, 0.1, 1, 10, 100, 1000) if high / low > 300 else _STEPS
        steps = [x for x in every if low <= x <= high]
        ax.set_xticks(steps, [f"×{x:g}" for x in steps])
        ax.minorticks_off()
        ax.set_yticks(
            range(len(shown)), [k.kind if len(k.kind) <= LABEL else k.kind[: LABEL - 1] + "…" for k in shown]
        )
        ax.set_ylim(len(shown) - 0.4, -0.6)
        ax.tick_params(axis="y", length=0)
        ax.grid(axis="x", linewidth=0.6)
        ax.set_xlabel("probability over that of the base prompt, mean over groups")
        return to_svg(drawn, "kinds", "Ratio to the base prompt of each kind of perturbation")
