"""What a rule is, and what rules share."""

from __future__ import annotations

import re
from collections.abc import Callable
from random import Random
from typing import NamedTuple


class Chance(NamedTuple):
    """``random``: seeded by the run's seed, the prompt and the kind; ``rate``: part of the words that a kind with a
    rate changes."""

    random: Random
    rate: float


class Rule(NamedTuple):
    """``apply``: the changed text, or None where there is nothing to change."""

    kind: str
    apply: Callable[[str, Chance], str | None]


ENDS = ".?!…"
NEGATIONS = frozenset(
    ("not", "no", "never", "none", "nor", "neither", "without", "cannot", "nothing", "nobody")
)
_SENTENCE = re.compile(r"(?<=[.?!…])\s+(?=[\"'“‘(]?[A-Z0-9])")


def sentences(text: str) -> list[str]:
    """The text cut after sentence ends; one piece where there is none inside. Their letters and marks are kept."""
    return [piece for piece in _SENTENCE.split(text.strip()) if piece]


def decapitalised(text: str) -> str:
    """The first letter small, where the first word is a word like others: not "I", a name in capitals, or a name as
    far as that can be seen (a capital inside)."""
    first = text.split(maxsplit=1)[0] if text.split() else ""
    word = re.sub(r"[^\w]", "", first)
    if (
        not word
        or word == "I"
        or first.startswith(("I'", "I’"))
        or (len(word) > 1 and word[1:] != word[1:].lower())
    ):
        return text
    return text[:1].lower() + text[1:]


def capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]
