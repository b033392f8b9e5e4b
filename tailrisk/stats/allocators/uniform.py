"""The same for every prompt: what the other rules are compared with."""

from __future__ import annotations

import numpy as np

from tailrisk.records import IntArray
from tailrisk.stats.allocators.needs import PromptNeeds, fill


def allocate(needs: PromptNeeds, draws: int) -> IntArray:
    """[C] draws for this round, alike for all prompts that want as many."""
    return fill(np.ones(len(needs.wanted)), np.zeros(len(needs.wanted)), needs.wanted, draws)
