"""Matplotlib figures as inline SVG that follows the page: its fonts, its colours, light or dark.

Figures are drawn with the stand-in colours of ``INK``; in the SVG each becomes a CSS variable of the page.
The series colours are those of Okabe & Ito (2008), told apart by readers with any common colour blindness;
shapes and line widths carry the same distinctions, so colour is never the only sign.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = {
    "#000001": "--ink",
    "#000002": "--muted",
    "#000003": "--line",
    "#000004": "--page",
    "#000011": "--c-blue",
    "#000012": "--c-vermilion",
    "#000013": "--c-green",
    "#000014": "--c-orange",
    "#000015": "--c-sky",
    "#000016": "--c-purple",
    "#000017": "--c-yellow",
    "#000018": "--c-grey",
}
_BY_NAME = {name.removeprefix("--").removeprefix("c-"): code for code, name in INK.items()}
DPI = 72
"""Of every SVG that matplotlib writes."""
WIDTH = 9.0
"""Inches of a figure as wide as the page."""
SERIES = ("blue", "orange", "green", "purple", "sky", "vermilion", "yellow")

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.axisbelow": True,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}


def ink(name: str) -> str:
    """The stand-in for a colour of the page: ink, muted, line, page or one of the series."""
    return _BY_NAME[name]


@contextmanager
def figure(
    width: float,
    height: float,
    columns: int = 1,
    rows: int = 1,
    *,
    share_x: bool = False,
    share_y: bool = False,
    ratios: Sequence[float] | None = None,
) -> Iterator[tuple[Figure, list[Axes]]]:
    """A figure of ``width`` x ``height`` inches with ``rows`` x ``columns`` axes, listed row by row, drawn without any
    display. ``ratios``: heights of the rows to one another."""
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    colours: dict[Any, Any] = {
        "text.color": ink("ink"),
        "axes.labelcolor": ink("ink"),
        "axes.edgecolor": ink("muted"),
        "xtick.color": ink("muted"),
        "ytick.color": ink("muted"),
        "xtick.labelcolor": ink("ink"),
        "ytick.labelcolor": ink("ink"),
        "grid.color": ink("line"),
    }
    with mpl.rc_context({**_STYLE, **colours}):
        drawn = Figure(figsize=(width, height))
        FigureCanvasSVG(drawn)
        grid = {"height_ratios": ratios} if ratios else None
        axes = drawn.subplots(rows, columns, sharex=share_x, sharey=share_y, squeeze=False, gridspec_kw=grid)
        yield drawn, list(axes.flat)


def to_svg(drawn: Figure, name: str, title: str) -> str:
    """The figure as an ``<svg>`` element for a page; the same figure gives the same text.

    ``title`` is what a screen reader says; it must hold no foreign text.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    out = io.StringIO()
    salted: dict[Any, Any] = {"svg.hashsalt": name}
    with mpl.rc_context({**_STYLE, **salted}):
        # As savefig does, but for drawing everything once more only to find the places of the axes.
        drawn.set_dpi(DPI)
        layout = drawn.get_layout_engine()
        if layout is not None:
            layout.execute(drawn)
            drawn.set_layout_engine("none")
        FigureCanvasSVG(drawn).print_svg(
            out, metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
        )
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    for code, variable in INK.items():
        text = text.replace(code, f"var({variable})")
    text = re.sub(r"(stop|fill|stroke)=\"var\((--[a-z-]+)\)\"", r'style="\1: var(\2)"', text)
    text = re.sub(r"font-family: [^;\"]*;?|font: (\d+(?:\.\d+)?px)[^;\"]*", _font, text)
    # Names that nothing refers to would repeat from figure to figure.
    used = set(re.findall(r"(?:href=\"#|url\(#)([^\")]+)", text))
    text = re.sub(r' id="([^"]+)"', lambda m: m.group(0) if m.group(1) in used else "", text)
    size = f'style="max-width: {100 * drawn.get_figwidth() / WIDTH:.0f}%"'
    return re.sub(r"<svg ", f'<svg role="img" aria-label="{title}" class="figure" {size} ', text, count=1)


def _font(match: re.Match[str]) -> str:
    """Keeps the size that matplotlib chose and leaves the family to the page."""
    return f"font-size: {match.group(1)}" if match.group(1) else ""
