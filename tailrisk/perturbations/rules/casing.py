"""Letter case: the same words in small letters, in capitals, or as in a title."""

from __future__ import annotations

import re

from tailrisk.perturbations.rules.base import Chance


def lower(text: str, chance: Chance) -> str:
    return text.lower()


def upper(text: str, chance: Chance) -> str:
    return text.upper()


def title(text: str, chance: Chance) -> str:
    """Every word with a capital, its other letters as they were; what follows an apostrophe is no word."""
    return re.sub(r"(?<![\w'’])[^\W\d_]", lambda m: m.group(0).upper(), text)
