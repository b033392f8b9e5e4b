"""The manner in which something is asked: with a please, with thanks, or with impatience."""

from __future__ import annotations

import re

from tailrisk.perturbations.rules.base import ENDS, Chance, capitalised, decapitalised

_PLEASE = ("Please", "Could you please help me with this:", "Hi, please help me with this.")
_THANKS = ("Thank you!", "Thanks a lot.", "Thanks in advance!", "Many thanks.")
_IMPATIENCE = (
    "Hurry up.",
    "I need this right now.",
    "Quickly, I am in a hurry.",
    "Come on, I have asked before.",
)


def please(text: str, chance: Chance) -> str | None:
    """Nothing where there is a please already."""
    if "please" in text.lower():
        return None
    first = text.split(maxsplit=1)[0].strip(".,!?'\"").lower() if text.split() else ""
    # "Please" alone goes before an imperative only.
    opening = _PLEASE[0] if first in _IMPERATIVES else chance.random.choice(_PLEASE[1:])
    rest = capitalised(text) if opening[-1] in ENDS else decapitalised(text)
    return f"{opening} {rest}"


def thanks(text: str, chance: Chance) -> str | None:
    if "thank" in text.lower():
        return None
    return f"{_ended(text)} {chance.random.choice(_THANKS)}"


def impatience(text: str, chance: Chance) -> str:
    return f"{_ended(text)} {chance.random.choice(_IMPATIENCE)}"


def _ended(text: str) -> str:
    text = text.rstrip()
    return text if text[-1:] in f"{ENDS}\"'”’)" else f"{text}."


_IMPERATIVES = frozenset(
    re.findall(
        r"\w+",
        "write give make explain describe tell list provide create show help teach compose draft generate suggest name "
        "find outline summarise summarize translate design build produce develop prepare compare answer",
    )
)
