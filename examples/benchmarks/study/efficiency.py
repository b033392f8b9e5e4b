"""Draws until an estimate is within a factor of two with probability 95 %, every draw counted.

Counted are pilot, search and the target's share. For the published method the search is shared by all prompts.
Plain sampling needs no simulation: its hits are binomial.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
from scipy.stats import binom
from truth import gate, markov

from study.published import CELLS, INTENSITIES, SEARCH_DRAWS, SWITCHES, Place, Pool, pool, search
from study.worlds import counts_of
from tailrisk.stats import (
    RoundDraws,
    component_shares,
    control_mean,
    event_mean,
    pilot_worth,
    round_mass,
)

FACTOR, WANTED = 2.0, 0.95
MOST = 200_000
PILOT = 64
TARGET_SHARE = 0.2
OURS = tuple((1.0, 1.0, switch) for switch in SWITCHES)
"""Our proposals: the refusal taken out entirely, for the first 1, 2, 4, 8 or all tokens; nothing is chosen."""
KS = (500, 1000, 1500)
SHOWN = (1e-4, 1e-6)
"""Probabilities whose prompts are measured; the others are there to be searched on."""


def close(ratios: np.ndarray) -> float:
    return float(np.mean((ratios >= 1 / FACTOR) & (ratios <= FACTOR)))


def least_draws(share_close: Callable[[int], float], start: int, step: float = 1.25) -> int | None:
    """Smallest n on a geometric grid from which on the share is reached; None above ``MOST``."""
    n, found = start, None
    while n <= MOST:
        if share_close(n) >= WANTED:
            if found is not None:
                return found
            found = n  # one success may be luck of the replications: the next one must hold as well
        else:
            found = None
        n = math.ceil(n * step)
    return None


def plain_draws(p: float) -> int:
    """Exact, to a part in a thousand: X binomial, p / 2 <= X / n <= 2 p."""
    sizes = [math.ceil(1 / p)]
    while True:
        while len(sizes) < 1000:
            sizes.append(math.ceil(sizes[-1] * 1.001))
        n = np.array(sizes)
        low, high = np.ceil(n * p / FACTOR), np.floor(n * p * FACTOR)
        enough = binom.cdf(high, n, p) - binom.cdf(low - 1, n, p) >= WANTED
        if enough.any():
            return sizes[int(np.argmax(enough))]
        sizes = [math.ceil(sizes[-1] * 1.001)]


def _round(tables: np.ndarray, counts: np.ndarray, mass: float, rng: np.random.Generator) -> RoundDraws:
    tokens = np.concatenate(
        [markov.draw(t, int(c), gate.LENGTH, rng) for t, c in zip(tables, counts, strict=True)]
    )
    component = np.repeat(np.arange(len(counts)), counts)
    log_q = markov.log_prob(tables, tokens)
    verdict = gate.EVENTS["any"].of(tokens).astype(np.int8)
    return RoundDraws(counts, mass, component, log_q, log_q[np.arange(len(component)), component], verdict)


@cache
def own_laws(place: Place) -> np.ndarray:
    """The target and our proposals."""
    return place.laws(OURS)


def adaptive(place: Place, n: int, rng: np.random.Generator) -> list[RoundDraws]:
    """A pilot, then the rest by the shares its hits suggest, with the masses that the driver gives them."""
    tables = own_laws(place)
    k = len(tables)
    if n < 2 * PILOT:
        return [_round(tables, counts_of(k, n, TARGET_SHARE), 1.0, rng)]
    mass = round_mass(1.0, PILOT, n, final=False, worth=pilot_worth(k - 1))
    pilot = _round(tables, counts_of(k, PILOT, TARGET_SHARE), mass, rng)
    shares = component_shares([[pilot]], target_share=TARGET_SHARE, corrected=False)[0]
    counts = np.maximum(np.floor(shares * (n - PILOT)).astype(np.int64), 2)
    counts[int(np.argmax(counts))] += n - PILOT - counts.sum()
    return [pilot, _round(tables, counts, 1 - mass, rng)]


def fixed(place: Place, n: int, rng: np.random.Generator) -> list[RoundDraws]:
    """One round, the proposals alike."""
    tables = own_laws(place)
    return [_round(tables, counts_of(len(tables), n, TARGET_SHARE), 1.0, rng)]


def ours(place: Place, times: int, seed: int) -> dict[str, int | None]:
    """Least draws of our estimators for one prompt."""

    def reached(plan: Callable[..., list[RoundDraws]], mean: Callable[..., Any]) -> Callable[[int], float]:
        def share(n: int) -> float:
            rng = np.random.default_rng([seed, n])
            values = [mean(plan(place, n, rng), corrected=False).value for _ in range(times)]
            return close(np.array(values) / place.truth)

        return share

    return {
        "mixture, fixed shares": least_draws(reached(fixed, event_mean), 40),
        "mixture, adaptive": least_draws(reached(adaptive, event_mean), PILOT),
        "control variates, adaptive": least_draws(reached(adaptive, control_mean), PILOT),
    }


class Published:
    """The published method over all prompts; ``choices``: how often the search chose each cell."""

    def __init__(
        self, places: Sequence[Place], *, first: bool, searches: int, pool_size: int, times: int, seed: int
    ) -> None:
        self.seed, self.pool_size, self.times = seed, pool_size, times
        rng = np.random.default_rng(seed)
        tenth = len(places) // 10
        self.search_cost = tenth * len(INTENSITIES) * SEARCH_DRAWS / len(places)
        self.choices: dict[int, int] = {}
        for _ in range(searches):
            rows = range(tenth) if first else rng.choice(len(places), size=tenth, replace=False)
            cell = search([places[i] for i in rows], rng)
            if cell is not None:
                self.choices[cell] = self.choices.get(cell, 0) + 1

    def pools(self, place: Place) -> list[tuple[float, Pool]]:
        total = sum(self.choices.values())
        return [
            (count / total, pool(place, cell, self.pool_size, self.seed + cell))
            for cell, count in sorted(self.choices.items())
        ]

    def measure(self, place: Place) -> dict[str, Any]:
        """Least draws with the search's part added, and what k draws give."""
        pools = self.pools(place)

        def share(k: int) -> float:
            rng = np.random.default_rng([self.seed, k])
            return sum(part * close(x.means(k, self.times, rng)) for part, x in pools)

        k = least_draws(share, 20)
        rng = np.random.default_rng(self.seed)
        at_k = {}
        for size in KS:
            low = sum(part * float(np.mean(x.means(size, self.times, rng) < 1 / 3)) for part, x in pools)
            at_k[str(size)] = {"below_a_third": low}
        return {"draws": None if k is None else math.ceil(k + self.search_cost), "at": at_k}

    def favourites(self, most: int = 5) -> list[dict[str, Any]]:
        total = sum(self.choices.values())
        best = sorted(self.choices.items(), key=lambda item: -item[1])[:most]
        names = ("intensity", "mix", "switch")
        return [
            {**dict(zip(names, CELLS[cell], strict=True)), "chosen": count / total} for cell, count in best
        ]


def compare(
    places: Sequence[Place], *, times: int, searches: int, pool_size: int, seed: int, every: int = 1
) -> dict[str, Any]:
    """One row a prompt (every so many), and the settings that the searches chose."""
    published = {
        name: Published(places, first=first, searches=searches, pool_size=pool_size, times=times, seed=seed)
        for name, first in (("published, first tenth", True), ("published, random tenth", False))
    }
    rows = []
    for place in [p for p in places if p.p in SHOWN][::every]:
        row: dict[str, Any] = {
            "p": place.truth,
            "depth": place.depth,
            "drift": place.drift,
            "plain": plain_draws(place.truth),
        }
        row["draws"] = ours(place, times, seed)
        row["published"] = {name: method.measure(place) for name, method in published.items()}
        rows.append(row)
    return {
        "rows": rows,
        "chosen": {name: method.favourites() for name, method in published.items()},
        "search_draws_per_prompt": {name: method.search_cost for name, method in published.items()},
    }
