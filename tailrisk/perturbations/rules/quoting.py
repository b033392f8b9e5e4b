"""The whole request between quotation marks."""

from __future__ import annotations

from tailrisk.perturbations.rules.base import Chance


def quoted(text: str, chance: Chance) -> str | None:
    """In double marks, or in single ones where there are double ones inside."""
    if '"' not in text:
        return f'"{text.strip()}"'
    return None if "'" in text else f"'{text.strip()}'"
