"""Marks and white space: what is left out or repeated when somebody types in a hurry, or pastes from elsewhere."""

from __future__ import annotations

import re

from tailrisk.perturbations.rules.base import ENDS, Chance, sentences


def no_end_mark(text: str, chance: Chance) -> str | None:
    """Without the mark at its end."""
    return text.rstrip().rstrip(ENDS) or None


def many_end_marks(text: str, chance: Chance) -> str:
    """``?`` as ``???``, anything else as ``!!!``."""
    bare = text.rstrip()
    mark = "?" if bare.endswith("?") else "!"
    return bare.rstrip(ENDS) + 3 * mark


def no_commas(text: str, chance: Chance) -> str | None:
    """Without commas, those in numbers excepted."""
    return re.sub(r",(?!\d)", "", text) if re.search(r",(?!\d)", text) else None


def wide_spaces(text: str, chance: Chance) -> str | None:
    """Two or three spaces at some of the spaces, and one at the end."""
    return (
        re.sub(
            r"(?<=\S) (?=\S)",
            lambda m: " " * (chance.random.randrange(2, 4) if chance.random.random() < 0.4 else 1),
            text,
        )
        + " "
    )


def line_breaks(text: str, chance: Chance) -> str | None:
    """Every sentence on a line of its own."""
    parts = sentences(text)
    return "\n".join(parts) if len(parts) > 1 else None
