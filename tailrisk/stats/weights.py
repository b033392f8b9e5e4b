"""Weights of draws under the balance heuristic: w = p / sum_k beta_k q_k with beta_k = n_k / n.

Veach & Guibas (1995), "Optimally combining sampling techniques"; Owen & Zhou (2000), "Safe and effective
importance sampling". With a share beta_0 of draws from the target, w <= 1 / beta_0.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from tailrisk.records import FloatArray, IntArray
from tailrisk.stats.ledger import RoundDraws

_FEW = 6


def mixture_log_weights(log_q: FloatArray, counts: ArrayLike) -> FloatArray:
    """[n] log of p / sum_k (c_k / sum c) q_k for rows of ``log_q`` [n, K] and ``counts`` c [K] >= 0.

    The counts need not be whole: shares do as well. Computed as log n - log sum_k n_k q_k/p, so that
    components equal to the target give a weight of exactly one. ``-inf`` where p is zero.
    """
    n = len(log_q)
    if n == 0:
        return np.empty(0)
    c = np.asarray(counts, dtype=np.float64)
    used, c = _used(log_q, c)
    log_p = log_q[:, 0]
    possible = np.isfinite(log_p)
    everywhere = np.count_nonzero(possible) == n
    if everywhere:
        ratio = used - log_p[:, None]
    else:
        ratio = np.where(possible[:, None], used, 0.0) - np.where(possible, log_p, 0.0)[:, None]
    top = _row_max(ratio)
    # Without draws of the target, p > 0 may meet a mixture of zero: no such draw can have come from it.
    reached = np.isfinite(top)
    if everywhere and np.count_nonzero(reached) == n:
        return math.log(c.sum()) - (top + np.log(np.exp(ratio - top[:, None]) @ c))
    safe_top = np.where(reached, top, 0.0)
    total = np.exp(ratio - safe_top[:, None]) @ c
    with np.errstate(divide="ignore"):
        log_w = math.log(c.sum()) - (safe_top + np.log(total))
    return np.where(possible & reached, log_w, -np.inf)


def density_ratios(log_q: FloatArray, counts: ArrayLike) -> FloatArray:
    """[m, K] q_k / q_beta with beta = counts / sum(counts), from ``log_q`` [m, K] and ``counts`` [K].

    Column 0 is the balance-heuristic weight. Equal densities give exactly one, a density of zero gives
    zero, and so does a row out of reach of every component with draws.
    """
    c = np.asarray(counts, dtype=np.float64)
    used, drawn = _used(log_q, c)
    top = _row_max(used)
    reached = np.isfinite(top)
    with np.errstate(over="ignore"):
        if np.count_nonzero(reached) == len(top):
            relative = np.exp(log_q - top[:, None])
            mix = _used(relative, c)[0] @ drawn
        else:
            safe_top = np.where(reached, top, 0.0)[:, None]
            relative = np.exp(np.where(reached[:, None], log_q, -np.inf) - safe_top)
            mix = np.where(reached, _used(relative, c)[0] @ drawn, 1.0)
    return relative * (float(c.sum()) / mix)[:, None]


# What follows is called several times a prompt and round on a few rows: what it costs is numpy's own calls, of which
# reductions and masks are the dearest.
def _used(log_q: FloatArray, counts: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The columns of the components with draws, and their counts."""
    chosen = counts > 0
    if np.count_nonzero(chosen) == len(counts):
        return log_q, counts
    columns = np.flatnonzero(chosen)
    return log_q.take(columns, axis=1), counts[columns]


def _row_max(x: FloatArray) -> FloatArray:
    """[n] largest of each row of ``x`` [n, K]."""
    if x.shape[1] > _FEW:
        return np.maximum.reduce(x, axis=1)
    top = x[:, 0]
    for k in range(1, x.shape[1]):
        top = np.maximum(top, x[:, k])
    return top


def own_correction(round_: RoundDraws, rows: IntArray | None = None) -> FloatArray:
    """[n] scored minus sampled log-probability under the draw's own component, of some ``rows`` or all.

    Its exponential turns an average over the law as sampled into one over the law as scored.
    """
    chosen = np.arange(round_.n) if rows is None else rows
    component = np.asarray(round_.component, dtype=np.int64)[chosen]
    return round_.log_q[chosen, component] - round_.log_q_sample[chosen]


def log_weights(round_: RoundDraws, rows: IntArray | None = None, *, corrected: bool) -> FloatArray:
    """[n] log weights of a round's draws, of some ``rows`` or all; with ``corrected`` the numerics' own correction is
    included.

    Either way the mean of w * f over the round is unbiased for E_p f with p as scored, provided that the
    sampling pass and the scoring pass agree (not corrected) or not even that (corrected).
    """
    log_q = round_.log_q if rows is None else round_.log_q[rows]
    log_w = mixture_log_weights(log_q, round_.expected)
    return log_w + own_correction(round_, rows) if corrected else log_w
