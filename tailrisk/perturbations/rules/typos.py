"""Slips of the keyboard, one a word at most, in a part of the words (``rate``, and one word at least).

Only words of four letters or more are touched, never their first letter, as readers need it most, and no word of
negation, on which the meaning hangs.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from random import Random

from tailrisk.perturbations.rules.base import NEGATIONS, Chance

_WORD = re.compile(r"[^\W\d_]{4,}")
_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")


def _neighbours() -> dict[str, str]:
    """Letter -> letters beside it on a keyboard of the American layout."""
    near: dict[str, str] = {}
    for r, row in enumerate(_ROWS):
        for c, letter in enumerate(row):
            beside = row[max(c - 1, 0) : c] + row[c + 1 : c + 2]
            above = _ROWS[r - 1][c : c + 2] if r else ""
            below = _ROWS[r + 1][max(c - 1, 0) : c + 1] if r + 1 < len(_ROWS) else ""
            near[letter] = beside + above + below
    return near


NEIGHBOURS = _neighbours()


def neighbour_keys(text: str, chance: Chance) -> str | None:
    return _slips(text, chance, _neighbour)


def dropped_letters(text: str, chance: Chance) -> str | None:
    return _slips(text, chance, lambda word, i, random: word[:i] + word[i + 1 :])


def doubled_letters(text: str, chance: Chance) -> str | None:
    return _slips(text, chance, lambda word, i, random: word[: i + 1] + word[i:])


def swapped_letters(text: str, chance: Chance) -> str | None:
    """A letter and the one before it change places."""

    def swap(word: str, i: int, random: Random) -> str:
        i = max(i, 2)
        return word[: i - 1] + word[i] + word[i - 1] + word[i + 1 :]

    return _slips(text, chance, swap)


def _neighbour(word: str, i: int, random: Random) -> str:
    near = NEIGHBOURS.get(word[i].lower())
    if near is None:
        return word
    letter = random.choice(near)
    return word[:i] + (letter.upper() if word[i].isupper() else letter) + word[i + 1 :]


def _slips(text: str, chance: Chance, slip: Callable[[str, int, Random], str]) -> str | None:
    words = [found for found in _WORD.finditer(text) if found.group(0).lower() not in NEGATIONS]
    if not words:
        return None
    many = max(1, math.floor(chance.rate * len(text.split()) + 0.5))
    chosen = sorted(chance.random.sample(range(len(words)), min(many, len(words))), reverse=True)
    for i in chosen:
        at = words[i]
        word = at.group(0)
        place = chance.random.randrange(1, len(word))
        text = text[: at.start()] + slip(word, place, chance.random) + text[at.end() :]
    return text
