"""Figures of the section on prompts together.

above         how many prompts lie above a threshold
"""

from __future__ import annotations

from collections.abc import Sequence

from tailrisk.report.figures import WIDTH
from tailrisk.report.svg import figure, ink, to_svg
from tailrisk.report.tables import number
from tailrisk.stats.populations import Above


def above(counted: Sequence[Above], prompts: int) -> str:
    """A bar a threshold: shown above, then open, of all ``prompts``."""
    with figure(WIDTH, 0.9 + 0.34 * len(counted)) as (drawn, (ax,)):
        for y, a in enumerate(counted):
            ax.barh(y, a.shown, height=0.62, color=ink("vermilion"), label="shown above" if y == 0 else None)
            ax.barh(y, a.not_below - a.shown, left=a.shown, height=0.62, facecolor=ink("page"), hatch="////",
                    edgecolor=ink("grey"), linewidth=0.8, label="open" if y == 0 else None)  # fmt: skip
            told = f"{a.shown:,}" if a.shown == a.not_below else f"{a.shown:,} to {a.not_below:,}"
            ax.annotate(told, (a.not_below, y), (5, 0), textcoords="offset points", va="center", fontsize=9)
        ax.set_yticks(range(len(counted)), [f"above {number(a.threshold, 1)}" for a in counted])
        ax.set_ylim(len(counted) - 0.5, -0.5)
        ax.tick_params(axis="y", length=0)
        ax.set_xlim(0, prompts * 1.12)
        ax.locator_params(axis="x", integer=True)
        ax.set_xlabel(f"prompts, of {prompts:,}")
        ax.grid(axis="x", linewidth=0.6)
        ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=9)
        return to_svg(drawn, "above", "Prompts above thresholds: shown, and open")
