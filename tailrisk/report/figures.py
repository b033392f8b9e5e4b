"""What the figures of all sections share: sizes, labels and axes.

The figures of a section stand in its own module, ``*figures``; each answers one question and returns an ``<svg>``
element.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tailrisk.report.svg import WIDTH as WIDTH
from tailrisk.report.tables import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

MOST_ROWS = 60
"""Prompts that a figure has a line for."""
LABEL = 34
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def _power_of_ten(value: float, _position: float) -> str:
    exponent = round(math.log10(value))
    return "1" if exponent == 0 else f"10{str(exponent).translate(_SUPERSCRIPT)}"


def decades(axis: Axis) -> None:
    """Plain-text tick labels for a logarithmic axis (mathematical text is switched off)."""
    axis.set_major_formatter(_power_of_ten)
    axis.set_minor_formatter("")


def same_scale(ax: Axes, low: float, high: float) -> None:
    """Two logarithmic axes that can be held against each other."""
    ax.set_xscale("log")
    ax.set_yscale("log")
    decades(ax.xaxis)
    decades(ax.yaxis)
    ax.set_xlim(low, high)
    ax.set_ylim(low, high)
    ax.grid(linewidth=0.6)


def label(name: str, most: int = LABEL) -> str:
    """A name that is short enough to stand in a figure."""
    return name if len(name) <= most else name[: most - 1] + "…"


def prompt_axis(ax: Axes, shown: Sequence[Row]) -> None:
    """Prompts from top to bottom, one a line."""
    ax.set_yticks(range(len(shown)), [label(r.prompt_id) for r in shown])
    ax.set_ylim(len(shown) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
