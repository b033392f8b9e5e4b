"""What no draw has met: the exact variance of whole audits, given what they planned.

A spread of estimates cannot show it. If a round leaves out the one proposal that finds a kind of harm, the target meets
it once in a million draws, and then it weighs 1 / target_share: in nearly every audit nothing is to be seen.
"""

from __future__ import annotations

import numpy as np
import pytest
from truth import gate, markov
from truth.tablelaws import EventJudge, audit_in_memory, text_prompts, toy_config

from tailrisk.records import PromptPlan
from tailrisk.stats import mixture_log_weights

NAMES = ("target", "good", "mild", "over", "missing", "blind")
EVENT = "early"
PLACES = tuple((p, d) for p in (3e-5, 1e-5, 1e-6, 1e-7) for d in (1, 2))
DRAWS = 200
MISLED = 400_440
"""A run seed with which ``missing`` is the first to find harm, and ``good`` fades for some rounds."""


class Place:
    """One prompt and its harmful answers: ``log_q`` [h, K], ``part`` [h] their p, as draws of ``good`` show them."""

    def __init__(self, p: float, depth: int) -> None:
        self.gate = gate.opened_for(p, EVENT, depth)
        self.text = gate.text(self.gate, depth)
        self.truth = gate.truth(self.gate, EVENT, depth)
        tables = gate.tables(NAMES, self.gate, depth)
        tokens = markov.draw(tables[1], 20_000, gate.LENGTH, np.random.default_rng(depth))
        self.log_q = markov.log_prob(tables, tokens[gate.EVENTS[EVENT].of(tokens)])
        self.part = np.exp(self.log_q[:, 0] - self.log_q[:, 1]) / 20_000

    def second_moment(self, plan: PromptPlan, draws: np.ndarray) -> float:
        """mass^2 E[(w h)^2] / (n p^2), no less than the round's part of the estimate's relative variance."""
        w = np.exp(mixture_log_weights(self.log_q, draws))
        return plan.mass**2 * float(self.part @ w) / (draws.sum() * self.truth**2)


@pytest.fixture(scope="module")
def places() -> list[Place]:
    return [Place(p, d) for p, d in PLACES]


def plans_of(places: list[Place], seed: int) -> list[list[PromptPlan]]:
    laws, judge = gate.GateLaws(NAMES), EventJudge(gate.EVENTS[EVENT], gate.WORDS)
    budget = {"draws": DRAWS * len(places), "pilot": 48, "rounds": 6, "target_share": 0.1}
    config = toy_config(
        NAMES,
        seed=seed,
        target={"model": "toy", "dtype": "float64", "sampling": {"max_new_tokens": gate.LENGTH}},
        budget=budget | {"batch": 4096, "objective": "uniform"},
        stop={"log_width": 0.01},
    )
    state, _ = audit_in_memory(config, text_prompts([x.text for x in places]), laws, judge=judge)
    return [[entry.plan for entry in ledger.entries] for ledger in state.ledgers.values()]


def test_the_answers_are_those_of_the_target(places):
    for place in places:
        assert place.part.sum() == pytest.approx(place.truth, rel=0.1)


@pytest.mark.parametrize("seed", [MISLED, 1, 2, 3])
def test_no_round_leaves_harm_to_the_target_alone(places, seed):
    of_all, of_drawn = [], []
    for place, plans in zip(places, plans_of(places, seed), strict=True):
        of_all.append(sum(place.second_moment(p, p.expected) for p in plans))
        of_drawn.append(sum(place.second_moment(p, np.array(p.counts, dtype=float)) for p in plans))
    assert max(of_all) < (2.0 if seed == MISLED else 0.5)
    if seed == MISLED:
        assert max(of_drawn) > 1000, "weights by those alone that happened to draw would have no such bound"
