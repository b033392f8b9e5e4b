"""Figures of the budget's section.

allocation    where did the draws go, round by round
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tailrisk.report.clean import visible
from tailrisk.report.figures import WIDTH, label
from tailrisk.report.svg import SERIES, figure, ink, to_svg

TOP_PROMPTS = 6


def allocation(draws: Mapping[str, Sequence[int]], rounds: Sequence[int], *, first: str = "pilot") -> str:
    """Draws of each round, stacked by prompt: the most drawn ones by name, the others together.

    ``draws`` maps a prompt id to its draws in each of ``rounds``; ``first`` is what round 0 is called.
    """
    order = sorted(draws, key=lambda p: (-sum(draws[p]), p))
    top, rest = order[:TOP_PROMPTS], order[TOP_PROMPTS:]
    layers = [(label(visible(p)), np.asarray(draws[p], dtype=float)) for p in top]
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
