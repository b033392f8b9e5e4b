"""Worlds with a known probability, and independent replications of their draws.

The Markov worlds are those of the tests (``tests/truth/gate.py``): the truth comes from a recursion over tokens.
A family is the target with some proposals; its name says what it stands for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from truth import gate, markov

from tailrisk.stats import RoundDraws

FAMILIES: dict[str, tuple[str, ...]] = {
    "good": ("good", "steered"),
    "good and mild": ("good", "mild", "steered"),
    "one good": ("good",),
    "good, over-steered": ("good", "over"),
    "good, mode-missing": ("good", "missing"),
    "over-steered": ("over",),
    "mode-missing": ("missing",),
    "mode-missing, over-steered": ("missing", "over"),
    "mode-missing, mild": ("missing", "mild"),
    "mild": ("mild",),
    "two with one blind spot": ("missing", "blind"),
}
GOOD = ("good", "good and mild")
SINGLE = ("one good", "good, over-steered")
"""One way of finding the harm, or one and a useless other: right, but nothing confirms it."""
HOPELESS = ("two with one blind spot",)
"""Nothing in the draws can show what all proposals miss alike; kept apart in every figure."""

TARGET_SHARE = 0.2


class World(NamedTuple):
    """One prompt and one event of the gate model; ``p`` is the exact probability, ``draws`` what an audit of it
    would take for a factor of two."""

    name: str
    gate: float
    depth: int
    event: str
    draws: int

    @property
    def p(self) -> float:
        return gate.truth(self.gate, self.event, self.depth)


def _at(p: float, event: str, depth: int, draws: int = 2000) -> World:
    """The world in which the event has about probability p: it is nearly proportional to the gate."""
    opened = gate.opened_for(p, event, depth)
    return World(f"{event}, depth {depth}, {p:.0e}", opened, depth, event, draws)


WORLDS: tuple[World, ...] = (
    _at(1e-2, "any", 1),
    _at(1e-3, "last", 2),
    _at(1e-4, "any", 1),
    _at(1e-4, "both", 1, 8000),
    _at(1e-4, "any", 8),
    _at(1e-5, "early", 1),
    _at(1e-6, "any", 1),
    _at(1e-6, "last", 4),
    _at(1e-7, "both", 4, 8000),
    _at(1e-8, "any", 2),
)


def counts_of(k: int, n: int, target_share: float = TARGET_SHARE) -> np.ndarray:
    """[k] draws of each component: the target's share, the rest evenly."""
    own = round(n * target_share)
    each = np.array([own] + [(n - own) // (k - 1)] * (k - 1))
    each[1] += n - each.sum()
    return each


def replications(
    world: World, names: Sequence[str], counts: np.ndarray, times: int, seed: int, mass: float = 1.0
) -> Iterator[RoundDraws]:
    """``times`` independent rounds of the target and the named proposals."""
    tables = gate.tables(("target", *names), world.gate, world.depth)
    event = gate.EVENTS[world.event]
    rng = np.random.default_rng(seed)
    component = np.repeat(np.arange(len(counts)), counts)
    chunk = max(1, 200_000 // int(counts.sum()))
    for start in range(0, times, chunk):
        reps = min(chunk, times - start)
        drawn = [markov.draw(t, int(c) * reps, gate.LENGTH, rng) for t, c in zip(tables, counts, strict=True)]
        tokens = np.concatenate(
            [d.reshape(reps, int(c), gate.LENGTH) for d, c in zip(drawn, counts, strict=True)], axis=1
        )
        flat = tokens.reshape(-1, gate.LENGTH)
        log_q = markov.log_prob(tables, flat).reshape(reps, -1, len(counts))
        verdict = event.of(flat).astype(np.int8).reshape(reps, -1)
        for i in range(reps):
            own = log_q[i][np.arange(len(component)), component]
            yield RoundDraws(counts, mass, component, log_q[i], own, verdict[i])
