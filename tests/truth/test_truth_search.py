"""A search in front of the mixture leaves the estimate exactly unbiased: whole audits against the exact truth."""

from __future__ import annotations

import math

import numpy as np
import pytest
from truth.searchtoy import SearchLaws, search_config
from truth.tablelaws import audit_in_memory, toy_prompts, truth

from tailrisk.audit.estimates import estimate_all

GATE = 0.02


@pytest.mark.slow
def test_unbiased_over_hundreds_of_whole_audits():
    ratios, chosen = [], set()
    prompts, budget = toy_prompts([GATE]), {"draws": 160, "pilot": 24, "batch": 100, "rounds": 2}
    for seed in range(640):
        config = search_config(seed, method={"search_draws": 16}, budget=budget)
        state, _ = audit_in_memory(config, prompts, SearchLaws(config))
        (estimate,) = estimate_all(state)
        ratios.append(estimate.estimate / truth(GATE))
        chosen.add(state.ledgers["p00"].components)
        assert state.draws <= 160
    ratios = np.array(ratios)
    se = ratios.std(ddof=1) / math.sqrt(len(ratios))
    assert abs(ratios.mean() - 1.0) < 3.0 * se, (ratios.mean(), se)
    assert se < 0.025, se
    assert len(chosen) >= 4, "the test must see choices that depend on the search"
