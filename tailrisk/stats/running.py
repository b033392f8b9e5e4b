"""A prompt's estimate as its rounds came in, from sums over draws: for a history of runs of any size.

The means are those of ``tailrisk.stats.estimators``. The variance of a round's mean is taken from the round's own
draws, sum_k n_k s_k^2 / n^2, where the estimate itself pools the draws of all rounds for s_k; the two agree but for
chance.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tailrisk.records import FloatArray
from tailrisk.stats.estimators import Mean


class Sums(NamedTuple):
    """Of one stratum of a round, a component as a rule: draws, and the sums of w h and of its square over them."""

    n: int
    total: float
    square: float


def round_mean(strata: Sequence[Sums], mass: float) -> Mean:
    """The mean over one complete round. A stratum of one draw gets the variance of all."""
    n = sum(s.n for s in strata)
    total = sum(s.total for s in strata)
    overall = _variance(Sums(n, total, sum(s.square for s in strata)))
    within = sum(s.n * (_variance(s) if s.n > 1 else overall) for s in strata)
    return Mean(total / n, within / n**2, mass)


def history(rounds: Sequence[Mean]) -> list[Mean]:
    """What the estimate was after each of the rounds: sum_r a_r mu_r / sum_r a_r over those so far."""
    after, mass, value, variance = [], 0.0, 0.0, 0.0
    for r in rounds:
        mass += r.mass
        value += r.mass * r.value
        variance += r.mass**2 * r.variance
        after.append(Mean(value / mass, variance / mass**2, mass))
    return after


def _variance(s: Sums) -> float:
    return max(s.square - s.total**2 / s.n, 0.0) / (s.n - 1) if s.n > 1 else 0.0


class TopShares(NamedTuple):
    """``counts`` of the heaviest hits and the ``shares`` of the estimate that they carry."""

    counts: list[int]
    shares: list[float]


def top_shares(parts: FloatArray) -> TopShares:
    """Cumulated shares of hits, the heaviest first, at 1, 2, 5, 10, 20 ... hits. ``parts``: what each adds to the
    estimate."""
    ordered = np.sort(parts[parts > 0])[::-1]
    n = len(ordered)
    if n == 0:
        return TopShares([], [])
    counts = [c for e in range(len(str(n))) for c in (10**e, 2 * 10**e, 5 * 10**e) if c < n]
    counts.append(n)
    shares = np.cumsum(ordered) / ordered.sum()
    return TopShares(counts, [float(shares[c - 1]) for c in counts])
