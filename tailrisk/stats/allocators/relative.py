"""Mean squared relative error over prompts: draws proportional to sqrt(relative variance / cost)."""

from __future__ import annotations

import numpy as np

from tailrisk.records import FloatArray, IntArray
from tailrisk.stats.allocators.needs import PromptNeeds, fill, known_rel_var


def allocate(needs: PromptNeeds, draws: int) -> IntArray:
    """[C] draws for this round; those already made count, so that the *totals* follow the rule.

    Minimises sum_c v_c / n_c under sum_c cost_c n_c fixed (Neyman): n_c = sqrt(v_c / cost_c) up to a factor.
    """
    scores: FloatArray = np.sqrt(known_rel_var(needs) / needs.cost)
    return fill(scores, np.asarray(needs.drawn, dtype=np.float64), needs.wanted, draws)
