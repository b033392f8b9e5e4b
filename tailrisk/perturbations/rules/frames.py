"""The request inside a frame, as in a form or in a talk that goes on."""

from __future__ import annotations

from tailrisk.perturbations.rules.base import Chance


def question_frame(text: str, chance: Chance) -> str:
    return f"Question: {text.strip()}\nAnswer:"


def request_frame(text: str, chance: Chance) -> str:
    opening = chance.random.choice(
        ("Here is my request:", "My question is the following.", "This is what I would like:")
    )
    return f"{opening}\n\n{text.strip()}"
