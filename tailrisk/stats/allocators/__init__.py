"""Allocation of a round's draws over prompts: one file a rule, found by name.

An allocator is ``allocate(needs: PromptNeeds, draws: int) -> counts [C]``: whole numbers, never more than a
prompt wants, and ``min(draws, sum of wanted)`` in all; a pure function.
"""

from __future__ import annotations

from tailrisk.errors import ConfigError
from tailrisk.stats.allocators import relative, uniform
from tailrisk.stats.allocators.needs import Allocator, PromptNeeds

ALLOCATORS: dict[str, Allocator] = {"relative": relative.allocate, "uniform": uniform.allocate}


def get_allocator(name: str) -> Allocator:
    """The rule of this name.

    Raises:
        ConfigError: there is none.
    """
    try:
        return ALLOCATORS[name]
    except KeyError:
        known = ", ".join(sorted(ALLOCATORS))
        raise ConfigError(f"budget.objective: unknown objective {name!r}; known: {known}") from None


__all__ = ["ALLOCATORS", "Allocator", "PromptNeeds", "get_allocator"]
