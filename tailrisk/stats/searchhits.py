"""What a search found: harmful answers of many laws, weighted as draws of the target's law of harm.

The draws of one prompt come from several components with counts n_k fixed before they were drawn. The law of
harmful answers q* = p h / mu is estimated by weighing each harmful draw with

    w_i = p(x_i) / sum_k (n_k / n) q_k(x_i),

the balance heuristic (Veach & Guibas 1995; Owen & Zhou 2000) and not p over the density of the one component
that drew it: a rare draw of a component that hardly ever produces it would otherwise outweigh all others. Weights
are divided by their sum over the prompt, so that prompts count alike however likely their harm is. The
cross-entropy of a law q from q* is then - sum_i w_i log q(x_i) (de Boer et al. 2005, "A tutorial on the
cross-entropy method").
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tailrisk.records import FloatArray
from tailrisk.stats.diagnostics import effective_size
from tailrisk.stats.ledger import RoundDraws
from tailrisk.stats.weights import log_weights


class SearchHits(NamedTuple):
    """The different harmful answers that one prompt's search found and the target can produce, [h] of them.

    ``weight`` [h] sums to one (the draws of the same answer together); ``log_q`` [h, K]. ``hits``: harmful
    draws, ``ess`` their effective number (Kong 1992), ``by_component`` [K] who drew them.
    """

    weight: FloatArray
    log_q: FloatArray
    hits: int
    ess: float
    by_component: FloatArray


class Score(NamedTuple):
    """How near a component is to the law of harmful answers, over prompts that count alike.

    ``cross_entropy``: nats, inf if it cannot produce some harmful answer. ``gain``: nats that the mixture of
    the target's share and the component is nearer than the target alone; always finite.
    """

    cross_entropy: float
    gain: float


def search_hits(rounds: Sequence[RoundDraws], *, corrected: bool) -> SearchHits:
    """The hits of one prompt's search rounds; masses do not matter. ``corrected``: see ``log_weights``.

    Answers are told apart by their rows of log-probabilities. Needs one round at least.
    """
    k_all = len(rounds[0].counts)
    logs, rows, drawers = [], [], []
    total = sum(r.n for r in rounds)
    for round_ in rounds:
        chosen = round_.harmful & np.isfinite(round_.log_q[:, 0])
        logs.append(log_weights(round_, corrected=corrected)[chosen] + np.log(round_.n / total))
        rows.append(round_.log_q[chosen])
        drawers.append(np.asarray(round_.component, dtype=np.int64)[chosen])
    log_w, log_q = np.concatenate(logs), np.concatenate(rows)
    by_component = np.bincount(np.concatenate(drawers), minlength=k_all).astype(np.float64)
    if not len(log_w):
        return SearchHits(np.empty(0), np.empty((0, k_all)), 0, 0.0, by_component)
    weight = np.exp(log_w - log_w.max())
    # Sorted first, so that sums do not depend on the order of the draws.
    order = np.lexsort((*log_q.T[::-1], weight))
    weight, log_q = weight[order], log_q[order]
    answers, place = np.unique(log_q, axis=0, return_inverse=True)
    summed = np.bincount(place.ravel(), weights=weight, minlength=len(answers))
    return SearchHits(summed / summed.sum(), answers, len(weight), effective_size(weight), by_component)


class Pool(NamedTuple):
    """The hits of several prompts as one law of harmful answers: ``weight`` [h] sums to one, each prompt with
    hits having the same part; ``log_q`` [h, K]; ``unit`` [h] numbers the prompts; ``hits`` and ``ess`` are
    sums over the prompts."""

    weight: FloatArray
    log_q: FloatArray
    unit: np.ndarray
    hits: int
    ess: float


def pooled(found: Sequence[SearchHits]) -> Pool:
    """The prompts without hits are left out. Needs one prompt with hits at least."""
    some = [f for f in found if f.hits]
    return Pool(
        np.concatenate([f.weight for f in some]) / len(some),
        np.concatenate([f.log_q for f in some]),
        np.concatenate([np.full(len(f.weight), i) for i, f in enumerate(some)]),
        sum(f.hits for f in some),
        sum(f.ess for f in some),
    )


def scores(pool: Pool, target_share: float) -> tuple[Score, ...]:
    """[K] scores of all components, the target's first (its gain is zero)."""
    ratio = pool.log_q - pool.log_q[:, :1]
    # log(t + (1 - t) q / p) without overflow; -inf gives log t.
    with np.errstate(divide="ignore"):
        mixed = np.logaddexp(np.log(target_share), np.log1p(-target_share) + ratio)
    mixed[:, 0] = 0.0
    # A weight may underflow to zero where the law's own density is zero: nothing is missed there.
    counted = np.where(pool.weight[:, None] > 0, pool.log_q, 0.0)
    entropy = -(pool.weight @ counted)
    gain = pool.weight @ mixed
    return tuple(Score(float(e), float(g)) for e, g in zip(entropy, gain, strict=True))
