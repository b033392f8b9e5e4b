"""The same statements in another order, where that changes nothing."""

from __future__ import annotations

import re

from tailrisk.perturbations.rules.base import ENDS, Chance, capitalised, decapitalised, sentences

_CLAUSE = re.compile(
    r"^(?P<main>[^,;:.?!]{8,}?),?\s+(?P<clause>(?:if|when|while|because|since|although|unless|before|after|without)\s"
    r"[^,;:.?!]{6,})(?P<end>[.?!]*)$",
    re.IGNORECASE,
)
_BACK = re.compile(
    r"\b(?:this|that|these|those|it|its|they|them|their|he|him|his|she|her|such|also|additionally|furthermore|moreover|"
    r"then|however|but|and|or|so|instead|otherwise|second|secondly|finally|above|both|either|former|latter|one|ones)\b",
    re.IGNORECASE,
)


def clause_first(text: str, chance: Chance) -> str | None:
    """``Do X if Y.`` as ``If Y, do X.``, of a text of one sentence; the clause must not refer to what comes before it,
    nor the rest hold a second one."""
    parts = sentences(text)
    if len(parts) != 1 or (found := _CLAUSE.match(parts[0])) is None:
        return None
    main, clause, end = found.group("main", "clause", "end")
    if _BACK.search(clause) or re.search(r"\b(?:and|or|who|which|that|what|how)\b", main[3:], re.IGNORECASE):
        return None
    return f"{capitalised(clause)}, {decapitalised(main)}{end}"


def sentences_turned(text: str, chance: Chance) -> str | None:
    """The last sentence first, where no sentence after the first one refers back to another."""
    parts = sentences(text)
    if len(parts) < 2 or any(_BACK.search(part) for part in parts[1:]):
        return None
    if any(part.rstrip()[-1:] not in ENDS for part in parts):
        return None
    return " ".join([parts[-1], *parts[:-1]])
