"""Cross-entropy search for each prompt's components, then the mixture of those alone.

Round 0, of mass 0, spreads every prompt's search draws over the target and the cells of all proposals, and
scores each draw under all of them. ``choice`` picks a few cells for each prompt from what was found. Then the
mixture takes its course (``tailrisk.audit.planner``): the pilot's shares come from the search, only the chosen
components draw and are scored, and the estimate rests on these rounds alone.
"""

from __future__ import annotations

import math

import numpy as np

from tailrisk.audit import planner
from tailrisk.audit.batches import affordable, round_of
from tailrisk.audit.methods.choice import choose
from tailrisk.audit.scouts import Start
from tailrisk.audit.state import AuditState
from tailrisk.errors import ConfigError
from tailrisk.records import PromptPlan, RoundPlan
from tailrisk.searchgrid import search_method, search_problems
from tailrisk.seeds import derive_seed

BLOCK = 4
"""Search draws of one cell for one prompt, where they do not suffice for so many of every cell: a batch of one
answer costs nearly as much as one of a few."""


def plan_round(state: AuditState) -> RoundPlan | None:
    """The search, the pilot of what it chose, then the rounds of the mixture; None when nothing is left.

    Raises ConfigError if the budget does not hold the search and the pilot.
    """
    if state.round < 0:
        return _search(state)
    if state.round + 1 == state.search_rounds:
        starts = {
            prompt: Start(choice.components, choice.shares)
            for choice in choose(state)
            for prompt in choice.prompts
        }
        return planner.pilot(state, starts)
    return planner.next_round(state)


def _search(state: AuditState) -> RoundPlan:
    config = state.config
    method, prompts = search_method(config), list(state.ledgers)
    problems = search_problems(config, len(prompts))
    if problems or affordable(state) < method.search_draws * len(prompts):
        raise ConfigError("\n".join(problems))
    if state.laws.names != config.component_names:
        raise ConfigError(
            f"method: search: the laws are {len(state.laws.names)} components, the configuration's grids "
            f"have {len(config.component_names)}: build the laws from the same configuration"
        )
    return round_of(
        state,
        [
            PromptPlan(prompt_id=prompt, counts=search_counts(state, number), mass=0.0, final=False)
            for number, prompt in enumerate(prompts)
        ],
    )


def search_counts(state: AuditState, number: int) -> tuple[int, ...]:
    """[K] search draws of the prompt with this number: the target's share, the rest over the cells.

    Blocks of draws go round all cells in an order drawn once by the run's seed, each prompt going on where
    the one before it ended, so that the cells get the same number over all prompts, to one block.
    """
    config, cells = state.config, len(state.laws.names) - 1
    draws = search_method(config).search_draws
    own = max(1, math.ceil(round(config.budget.target_share * draws, 9)))
    left = draws - own
    order = np.random.default_rng(derive_seed(config.run.seed, "search cells")).permutation(cells)
    block = 1 if left >= cells * BLOCK else BLOCK
    sizes = [block] * (left // block) + ([left % block] if left % block else [])
    counts = np.zeros(cells + 1, dtype=np.int64)
    counts[0] = own
    for place, size in enumerate(sizes):
        counts[1 + order[(number * len(sizes) + place) % cells]] += size
    return tuple(int(c) for c in counts)
