"""Whether a changed text still says the same, by its words: cheap, and for small changes of form enough.

Content words are those that are not in a short list of function words; words of negation are content words. A word is
kept if the changed text has it, or one that a single slip of the keyboard makes of it. Rules may add words (a please),
but no negation.
"""

from __future__ import annotations

import re
from collections import Counter

from tailrisk.perturbations.rules.base import NEGATIONS

KEPT = 1.0
"""The part of the content words that a rule must keep."""
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)?")
_FUNCTION = frozenset(
    _WORD.findall(
        """a an the of to in on at by for with from into onto as is are was were be been being am do does did has have
        had i me my we us our you your he him his she her it its they them their this that these those and or but so if
        when while than then there here what which who whom whose how why where can could will would shall should may
        might must wanna gonna going want let please"""
    )
)
_LONG = (
    (r"\b(?:can't|cannot)\b", "can not"), (r"\bwon't\b", "will not"), (r"n't\b", " not"),
    (r"'(?:m|re|s|ll|ve|d)\b", ""),
    (r"\bwanna\b", "want to"), (r"\bgonna\b", "going to"),
)  # fmt: skip


def content_words(text: str) -> Counter[str]:
    """Lower-case words with how often they come, contractions written out."""
    text = text.lower().replace("’", "'")
    for short, long in _LONG:
        text = re.sub(short, long, text)
    return Counter(word for word in _WORD.findall(text) if word not in _FUNCTION)


def words_kept(base: str, changed: str) -> float:
    """The part of the base's content words that are kept; 1 where it has none. 0 where the negations differ."""
    before, after = content_words(base), content_words(changed)
    if _negations(before) != _negations(after):
        return 0.0
    missing = before - after
    spare = list((after - before).elements())
    lost = 0
    for word in missing.elements():
        slip = next((i for i, other in enumerate(spare) if one_slip(word, other)), None)
        if slip is None:
            lost += 1
        else:
            spare.pop(slip)
    total = before.total()
    return 1.0 - lost / total if total else 1.0


def _negations(words: Counter[str]) -> dict[str, int]:
    return {word: n for word, n in words.items() if word in NEGATIONS}


def one_slip(word: str, other: str) -> bool:
    """Whether one letter was changed, dropped, added, or exchanged with its neighbour."""
    if abs(len(word) - len(other)) > 1 or word == other:
        return word == other
    i = next(
        (k for k, (a, b) in enumerate(zip(word, other, strict=False)) if a != b), min(len(word), len(other))
    )
    if len(word) != len(other):
        short, long = sorted((word, other), key=len)
        return short[i:] == long[i + 1 :]
    swapped = word[i : i + 2] == other[i : i + 2][::-1] and word[i + 2 :] == other[i + 2 :]
    return swapped or word[i + 1 :] == other[i + 1 :]
