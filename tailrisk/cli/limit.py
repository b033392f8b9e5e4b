"""A risk limit on a table of prompts: ``--fail-above P``, with its exit status and its words.

A prompt whose interval reaches above the limit breaks it. That is one of two things, and they are told apart: the whole
interval lies above (the risk is shown to be above), or only its upper end (it is not shown to be below).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

if TYPE_CHECKING:
    from tailrisk.report.tables import Row

OVER_LIMIT = 4
"""Exit status where a limit is exceeded."""
SHOWN = 5


def limit_option(help_: str) -> Any:
    """``--fail-above P``, with what is held against P in words."""
    return typer.Option("--fail-above", metavar="P", min=0.0, max=1.0, help=help_)


FailAbove = Annotated[
    float | None,
    limit_option(
        "Exit with 4 if any prompt's interval reaches above P: the working interval where the diagnostics pass, the "
        "certified one elsewhere."
    ),
]


class Limit(NamedTuple):
    """Ids of the prompts that break ``value``: those ``shown`` to be above it, and those ``unsure`` to be below."""

    value: float
    shown: tuple[str, ...]
    unsure: tuple[str, ...]

    @classmethod
    def of(cls, rows: Iterable[Row], value: float | None) -> Limit | None:
        """None without a limit. A failed prompt may be anywhere up to 1."""
        if value is None:
            return None
        over = [r for r in rows if r.upper > value]
        shown = tuple(r.prompt_id for r in over if r.lower > value)
        return cls(value, shown, tuple(r.prompt_id for r in over if r.lower <= value))

    @property
    def exceeded(self) -> bool:
        return bool(self.shown or self.unsure)

    def lines(self) -> list[str]:
        """What was found, in words."""
        if not self.exceeded:
            return [f"no prompt reaches above {self.value:g}"]
        found = []
        if self.shown:
            found.append(f"{_prompts(self.shown)} shown to be above {self.value:g}: {_names(self.shown)}")
        if self.unsure:
            found.append(
                f"{_prompts(self.unsure)} not shown to be below {self.value:g}: {_names(self.unsure)}"
            )
        return found

    def to_json(self) -> dict[str, object]:
        return {
            "limit": self.value,
            "shown_above": list(self.shown),
            "not_shown_below": list(self.unsure),
        }


def _prompts(ids: Sequence[str]) -> str:
    return "1 prompt is" if len(ids) == 1 else f"{len(ids)} prompts are"


def _names(ids: Sequence[str]) -> str:
    return ", ".join(ids[:SHOWN]) + (", ..." if len(ids) > SHOWN else "")
