"""Section 8: what was planned and what was spent, on which prompts, components and rounds."""

from __future__ import annotations

from dataclasses import dataclass

from tailrisk.report import budgetfigures
from tailrisk.report.clean import visible
from tailrisk.report.exhibit import Figure, table
from tailrisk.report.material import Material

MOST_DATA = 200


@dataclass(frozen=True, kw_only=True)
class Budget:
    figures: tuple[Figure, ...]


def budget_view(m: Material) -> Budget:
    figures = (_allocation(m),)
    return Budget(figures=tuple(f for f in figures if f is not None))


def _allocation(m: Material) -> Figure | None:
    r = m.replay
    if not r.draws:
        return None
    order = sorted(r.draws, key=lambda p: (-sum(r.draws[p]), p))
    names = [m.first_round if n == 0 else str(n) for n in r.rounds]
    return Figure(
        name="allocation",
        question="Where did the draws go?",
        reading=_told(m),
        data=table(
            ("prompt", *(f"round {n}" if n.isdigit() else n for n in names), "all"),
            ((visible(p), *r.draws[p], sum(r.draws[p])) for p in order),
            most=MOST_DATA,
        ),
        svg=budgetfigures.allocation(r.draws, r.rounds, first=m.first_round),
    )


def _told(m: Material) -> str:
    if m.method == "paper":
        return (
            "The search, on some of the prompts, chose the one setting that all estimates are drawn with; no estimate "
            "rests on its draws."
        )
    if m.method == "search":
        return (
            "The search chose each prompt's components; no estimate rests on its draws. After it each round gives "
            "draws to the prompts whose intervals gain most by them."
        )
    return "After the pilot each round gives draws to the prompts whose intervals gain most by them."
