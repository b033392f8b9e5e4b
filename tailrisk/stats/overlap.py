"""Whether the harm was found twice: by components that could have missed it each in its own way.

A proposal that is blind to a kind of harm gives draws that look perfect: nothing in them differs from those of
a proposal that finds everything. As with animals that are caught, marked and caught again (Chapman 1951), only a
second way of finding tells how much the first one misses. So an estimate is corroborated if it rests on the
target's own draws, or if some proposal k, with the target alone, could have found half of the harm, and what it found
is what the others find as well.

Less of a second way will do where the first one is the target itself behind a forced opening, or shut out of
some (``restrictions``): its draws are plain draws of the target's answers of that kind, so it misses there what
is rare and nothing else. Then the second way need only show that the harm it finds is of that kind too.

"Could have found": hits weighted by their part of the estimate are a sample of the law of harmful answers q*.
Components with n_j draws are expected to put sum_j n_j q_j(x) of them where q* puts q*(x) = p(x) / mu, so x is
within their reach if mu sum_j n_j q_j(x) / p(x) >= e: they needed no luck to draw its like. This is the condition
n >= exp(log(q*/q)) of Chatterjee & Diaconis (2018), "The sample size required in importance sampling", response
by response.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tailrisk.records import FloatArray, IntArray
from tailrisk.stats.estimators import Contributions
from tailrisk.stats.ledger import RoundDraws
from tailrisk.stats.weights import mixture_log_weights

ENOUGH_HITS = 5
"""Hits that a second way of finding must have shown to count as one."""
ALONE = 0.5
ALONE_BESIDE_RESTRICTION = 0.05
OTHERS = 0.5
_MARGIN = 1.0
_CONSTANT = 0.5
"""Nats by which log(q_k/p) of a restriction may vary: the passes that measure an opening differ that much."""
_ENOUGH_ROWS = 20


class Overlap(NamedTuple):
    """For each of K components: ``others`` [K], the part of the estimate in reach of all the others' draws;
    ``alone`` [K], the part in reach of its own draws and the target's. ``own``: hits of the target itself that
    are not of a kind only the target finds. ``hits`` [K] by component. ``restricted`` [K]: see ``restrictions``."""

    others: FloatArray
    alone: FloatArray
    own: int
    hits: IntArray
    restricted: NDArray[np.bool_]

    @property
    def corroborated(self) -> bool:
        """Whether the target's own hits, or a second proposal, stand beside the rest."""
        if self.own >= ENOUGH_HITS:
            return True
        found = (self.others >= OTHERS) & (self.hits >= ENOUGH_HITS)
        found[0] = False
        if (found & (self.alone >= ALONE)).any():
            return True
        first = self.restricted & (self.alone >= ALONE) & (self.hits >= ENOUGH_HITS)
        beside = found & (self.alone >= ALONE_BESIDE_RESTRICTION) & ~self.restricted
        return bool(first.any() and beside.any())

    @property
    def leader(self) -> int:
        """The proposal that finds most by itself; 0 without proposals."""
        return 1 + int(np.argmax(self.alone[1:])) if len(self.alone) > 1 else 0


def restrictions(rounds: Sequence[RoundDraws]) -> NDArray[np.bool_]:
    """[K] True for the proposals with draws that are the target given that its answer is of some kind: q_k / p is
    the same for all draws that they can produce, one over the probability of the kind."""
    drawn = np.sum([r.counts for r in rounds], axis=0) > 0
    log_q = np.concatenate([r.log_q for r in rounds])
    found = np.zeros(log_q.shape[1], dtype=np.bool_)
    for k in np.flatnonzero(drawn[1:]) + 1:
        rows = np.isfinite(log_q[:, k]) & np.isfinite(log_q[:, 0])
        if rows.sum() >= _ENOUGH_ROWS:
            found[k] = _spread(log_q[rows, k] - log_q[rows, 0]) <= _CONSTANT
    return found


def _spread(x: FloatArray) -> float:
    """From the first to the last percentile; ``np.quantile`` without its checks, which cost more than the rest."""
    ordered, last = np.sort(x), len(x) - 1
    below = int(0.01 * last)
    part = 0.01 * last - below
    low = ordered[below] + part * (ordered[below + 1] - ordered[below])
    high = ordered[last - below] - part * (ordered[last - below] - ordered[last - below - 1])
    return float(high - low)


def overlap(
    parts: Contributions, counts: IntArray, own: int, restricted: NDArray[np.bool_] | None = None
) -> Overlap:
    """``counts`` [K]: draws of each component over all rounds; ``own``, ``restricted``: see ``Overlap``."""
    k_all = len(counts)
    hits = np.bincount(parts.component, minlength=k_all).astype(np.int64)
    total = float(parts.part.sum())
    others, alone = np.zeros(k_all), np.zeros(k_all)
    if restricted is None:
        restricted = np.zeros(k_all, dtype=np.bool_)
    if not total > 0:
        return Overlap(others, alone, own, hits, restricted)
    for k in np.flatnonzero(counts > 0):
        without = counts.copy()
        without[k] = 0
        only = np.zeros_like(counts)
        only[[0, k]] = counts[[0, k]]
        others[k], alone[k] = _in_reach(parts, without, total), _in_reach(parts, only, total)
    return Overlap(others, alone, own, hits, restricted)


def _in_reach(parts: Contributions, counts: IntArray, mu: float) -> float:
    """The part of the estimate where mu sum_j n_j q_j / p >= e."""
    if not counts.any():
        return 0.0
    log_w = mixture_log_weights(parts.log_q, counts)
    # A hit out of everyone's reach has weight "-inf" there, which would read as a very likely one.
    near = np.isfinite(log_w) & (np.log(mu) + np.log(counts.sum()) - log_w >= _MARGIN)
    return float(parts.part[near].sum() / mu)


def without_component(rounds: Sequence[RoundDraws], k: int) -> list[RoundDraws]:
    """The same rounds as if component k had not been asked; rounds with no other draws are left out.

    Counts, or the draws expected, and masses were fixed in advance for the others too, so what is estimated from
    them is unbiased.
    """
    kept = []
    for round_ in rounds:
        rows = round_.component != k
        if not rows.any():
            continue
        counts = np.asarray(round_.counts, dtype=np.int64).copy()
        counts[k] = 0
        faded = None if round_.faded is None else np.where(np.arange(len(counts)) == k, 0.0, round_.faded)
        kept.append(
            round_._replace(
                counts=counts,
                component=round_.component[rows],
                log_q=round_.log_q[rows],
                log_q_sample=round_.log_q_sample[rows],
                verdict=round_.verdict[rows],
                faded=faded if faded is not None and faded.any() else None,
                strong=None if round_.strong is None else round_.strong.take(rows),
            )
        )
    return kept
