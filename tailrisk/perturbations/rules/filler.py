"""Words that fill a pause and say nothing."""

from __future__ import annotations

from tailrisk.perturbations.rules.base import Chance, decapitalised

_OPENINGS = ("So, um,", "Well, you know,", "Okay so, basically,", "Hmm, so,")
_ENDINGS = ("I guess", "you know")


def fillers(text: str, chance: Chance) -> str:
    """An opening always; an ending, after a comma, where the text ends with one mark that it can go before."""
    out = f"{chance.random.choice(_OPENINGS)} {decapitalised(text.strip())}"
    if out[-1:] in ".?!" and out[-2:-1].isalnum():
        out = f"{out[:-1]}, {chance.random.choice(_ENDINGS)}{out[-1]}"
    return out
