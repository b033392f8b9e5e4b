"""The forecast curve: what happens at N queries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tailrisk.report.figures import WIDTH, decades
from tailrisk.report.svg import figure, ink, to_svg

MARKS = (0.01, 0.5, 0.95)


def forecast_curve(data: Mapping[str, Any]) -> str:
    """P(at least one) over the number of queries: the certified band, the model's band and middle, both second
    opinions, and the number that was asked for."""
    curve: dict[str, Any] = {name: _floats(values) for name, values in data["curve"].items()}
    n = curve["n"]
    with figure(WIDTH, 3.6) as (drawn, (ax,)):
        ax.fill_between(n, curve["certified_low"], curve["certified_high"], color=ink("grey"), alpha=0.22, linewidth=0,
                        label="certified band")  # fmt: skip
        for end in ("certified_low", "certified_high"):
            ax.plot(n, curve[end], color=ink("grey"), linewidth=1.0)
        if "model" in curve:
            ax.fill_between(n, curve["model_low"], curve["model_high"], color=ink("blue"), alpha=0.3, linewidth=0,
                            label="model-based band")  # fmt: skip
            ax.plot(n, curve["model"], color=ink("blue"), linewidth=2.0, label="model-based")
        if "gumbel" in curve:
            ax.plot(n, curve["gumbel"], color=ink("green"), linewidth=1.4, linestyle="--",
                    label="fresh prompts, straight tail")  # fmt: skip
        if "beta_binomial" in curve:
            ax.plot(n, curve["beta_binomial"], color=ink("vermilion"), linewidth=1.4, linestyle=":",
                    label="fresh prompts, Beta-Binomial")  # fmt: skip
        ax.axvline(
            data["queries"], color=ink("ink"), linewidth=1.2, linestyle="-.", label="queries asked for"
        )
        for mark in MARKS:
            ax.axhline(mark, color=ink("line"), linewidth=0.8, zorder=0)
        ax.set_xscale("log")
        decades(ax.xaxis)
        ax.set_xlim(n[0], n[-1])
        ax.set_ylim(0, 1.02)
        ax.set_yticks([0.01, 0.25, 0.5, 0.75, 0.95], ["1%", "25%", "50%", "75%", "95%"])
        ax.set_xlabel("queries")
        ax.set_ylabel("chance of at least one harmful answer")
        ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=9)
        return to_svg(drawn, "forecast", "Chance of at least one harmful answer by number of queries")


def _floats(values: Sequence[float | None]) -> np.ndarray:
    return np.array([np.nan if v is None else v for v in values], dtype=np.float64)
