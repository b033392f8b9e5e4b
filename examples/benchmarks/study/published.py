"""The published method in the gate model: a grid of laws, one cell for all prompts, single-component weights.

Ablation intensity x share of the ablated model in a token mixture x the token at which the target takes over. The
cell is chosen from search draws on a tenth of the prompts (``tailrisk.stats.crossentropy``); its draws count.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from truth import gate, markov

from tailrisk.stats import RoundDraws
from tailrisk.stats.crossentropy import choose_cell

INTENSITIES = (0.2, 0.4, 0.6, 0.8, 1.0)
MIXES = (0.2, 0.4, 0.6, 0.8, 1.0)
SWITCHES = (1, 2, 4, 8, gate.LENGTH)
CELLS = tuple(itertools.product(INTENSITIES, MIXES, SWITCHES))
SEARCH_DRAWS = 500
"""Draws at each intensity on each search prompt, as published."""


class Place(NamedTuple):
    """One prompt of the comparison, with the event "any"; ``drift`` says how much an intervention changes the
    answers to it, beside opening the gate."""

    p: float
    depth: int
    drift: float

    @property
    def gate(self) -> float:
        return gate.opened_for(self.p, depth=self.depth)

    @property
    def truth(self) -> float:
        return gate.truth(self.gate, "any", self.depth)

    def cell(self, intensity: float, mix: float, switch: int) -> np.ndarray:
        """[T, V + 1, V] tables of one cell of the grid."""
        target = gate.table(self.gate, self.depth)
        ablated = gate.ablated(self.gate, self.depth, intensity, self.drift)
        return markov.mixed(ablated, target, mix, switch, gate.LENGTH)

    def laws(self, cells: Sequence[tuple[float, float, int]]) -> np.ndarray:
        """[1 + cells, T, V + 1, V]: the target, then the cells."""
        target = gate.table(self.gate, self.depth)
        whole = np.broadcast_to(target, (gate.LENGTH, *target.shape))
        return np.stack([whole, *(self.cell(*c) for c in cells)])


PROBABILITIES = (1e-3, 1e-4, 1e-5, 1e-6)
ALIKE = tuple(Place(p, d, 0.0) for d in (1, 2, 3, 5, 8) for p in PROBABILITIES)
"""Prompts on which one setting serves all."""
UNLIKE = tuple(
    Place(p, d, drift) for drift, d in ((0, 1), (0, 8), (2, 3), (4, 1), (4, 8)) for p in PROBABILITIES
)
"""Prompts of several kinds, in the order of a file sorted by kind."""


@cache
def laws(place: Place) -> np.ndarray:
    """The target and the whole grid."""
    return place.laws(CELLS)


def search(places: Sequence[Place], rng: np.random.Generator) -> int | None:
    """The place in ``CELLS`` of the chosen cell; None without a hit."""
    rounds = []
    per_intensity = len(MIXES) * len(SWITCHES)
    for place in places:
        tables = laws(place)
        own, tokens = [], []
        for i in range(len(INTENSITIES)):
            cells = i * per_intensity + rng.integers(per_intensity, size=SEARCH_DRAWS)
            for cell, n in zip(*np.unique(cells, return_counts=True), strict=True):
                tokens.append(markov.draw(tables[1 + cell], int(n), gate.LENGTH, rng))
                own.append(np.full(n, 1 + cell))
        drawn, component = np.concatenate(tokens), np.concatenate(own)
        # Only hits take part in the choice; scoring the others under every cell would be for nothing.
        hits = gate.EVENTS["any"].of(drawn)
        log_q = markov.log_prob(tables, drawn[hits])
        component = component[hits]
        counts = np.bincount(component, minlength=len(tables))
        sampled = log_q[np.arange(len(component)), component]
        rounds.append(
            RoundDraws(counts, 1.0, component, log_q, sampled, np.ones(len(component), dtype=np.int8))
        )
    return choose_cell(rounds, range(1, 1 + len(CELLS)), corrected=False)


class Pool(NamedTuple):
    """w h / p of ``n`` draws of one cell for one prompt: those that are not zero."""

    values: np.ndarray
    n: int

    def means(self, k: int, times: int, rng: np.random.Generator) -> np.ndarray:
        """[times] estimates over truth, each from k draws taken from the pool at random."""
        hits = rng.binomial(k, len(self.values) / self.n, size=times)
        picked = self.values[rng.integers(max(len(self.values), 1), size=int(hits.sum()))]
        edges = np.concatenate([[0], np.cumsum(hits)])
        total = np.concatenate([[0.0], np.cumsum(picked)])
        return (total[edges[1:]] - total[edges[:-1]]) / k


def pool(place: Place, cell: int, n: int, seed: int) -> Pool:
    rng = np.random.default_rng(seed)
    tables = laws(place)[[0, 1 + cell]]
    kept = []
    for start in range(0, n, 100_000):
        tokens = markov.draw(tables[1], min(100_000, n - start), gate.LENGTH, rng)
        hits = tokens[gate.EVENTS["any"].of(tokens)]
        log_p, log_q = markov.log_prob(tables, hits).T
        kept.append(np.exp(log_p - log_q - math.log(place.truth)))
    return Pool(np.concatenate(kept), n)
