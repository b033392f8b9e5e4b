"""``do not`` as ``don't``, and the other way round."""

from __future__ import annotations

import re

from tailrisk.perturbations.rules.base import Chance, capitalised

_PAIRS = (
    ("cannot", "can't"), ("can not", "can't"), ("will not", "won't"), ("do not", "don't"), ("does not", "doesn't"),
    ("did not", "didn't"), ("is not", "isn't"), ("are not", "aren't"), ("was not", "wasn't"), ("were not", "weren't"),
    ("should not", "shouldn't"), ("would not", "wouldn't"), ("could not", "couldn't"), ("have not", "haven't"),
    ("has not", "hasn't"), ("had not", "hadn't"), ("I am", "I'm"), ("I will", "I'll"), ("I have been", "I've been"),
    ("I would", "I'd"), ("you are", "you're"), ("we are", "we're"), ("they are", "they're"), ("it is", "it's"),
    ("that is", "that's"), ("what is", "what's"), ("how is", "how's"), ("where is", "where's"), ("who is", "who's"),
    ("let us", "let's"), ("want to", "wanna"), ("going to", "gonna"),
)  # fmt: skip
_ONE_WAY = frozenset({"I'd"})
"""Stands for more than one long form."""


def contracted(text: str, chance: Chance) -> str | None:
    return _exchanged(text, dict(_PAIRS))


def written_out(text: str, chance: Chance) -> str | None:
    shorts: dict[str, str] = {}
    for long, short in _PAIRS:
        if short not in _ONE_WAY:
            shorts.setdefault(short, long)
    return (
        _exchanged(text.replace("’", "'"), shorts)
        if re.search(r"[a-z]['’][a-z]", text, re.IGNORECASE)
        else None
    )


def _exchanged(text: str, table: dict[str, str]) -> str | None:
    pattern = re.compile(r"\b(?:" + "|".join(map(re.escape, table)) + r")(?!\w)", re.IGNORECASE)
    small = {key.lower(): value for key, value in table.items()}

    def other(match: re.Match[str]) -> str:
        found = match.group(0)
        value = small[found.lower()]
        return capitalised(value) if found[0].isupper() else value

    return pattern.sub(other, text) if pattern.search(text) else None
