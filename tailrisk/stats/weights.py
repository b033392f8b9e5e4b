"""Weights of draws under the balance heuristic: w = p / sum_k beta_k q_k with beta_k = n_k / n.

Veach & Guibas (1995), "Optimally combining sampling techniques"; Owen & Zhou (2000), "Safe and effective
importance sampling". With a share beta_0 of draws from the target, w <= 1 / beta_0.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from tailrisk.records import FloatArray
from tailrisk.stats.ledger import RoundDraws


def mixture_log_weights(log_q: FloatArray, counts: ArrayLike) -> FloatArray:
    """[n] log of p / sum_k (c_k / sum c) q_k for rows of ``log_q`` [n, K] and ``counts`` c [K] >= 0.

    The counts need not be whole: shares do as well. Computed as log n - log sum_k n_k q_k/p, so that
    components equal to the target give a weight of exactly one. ``-inf`` where p is zero.
    """
    c = np.asarray(counts, dtype=np.float64)
    used = c > 0
    log_p = log_q[:, 0]
    possible = np.isfinite(log_p)
    everywhere = bool(possible.all())
    if everywhere:
        ratio = log_q[:, used] - log_p[:, None]
    else:
        ratio = np.where(possible[:, None], log_q[:, used], 0.0) - np.where(possible, log_p, 0.0)[:, None]
    top = np.maximum.reduce(ratio, axis=1)
    # Without draws of the target, p > 0 may meet a mixture of zero: no such draw can have come from it.
    reached = np.isfinite(top)
    if everywhere and reached.all():
        return np.log(c.sum()) - (top + np.log(np.exp(ratio - top[:, None]) @ c[used]))
    safe_top = np.where(reached, top, 0.0)
    total = np.exp(ratio - safe_top[:, None]) @ c[used]
    with np.errstate(divide="ignore"):
        log_w = np.log(c.sum()) - (safe_top + np.log(total))
    return np.where(possible & reached, log_w, -np.inf)


def density_ratios(log_q: FloatArray, counts: ArrayLike) -> FloatArray:
    """[m, K] q_k / q_beta with beta = counts / sum(counts), from ``log_q`` [m, K] and ``counts`` [K].

    Column 0 is the balance-heuristic weight. Equal densities give exactly one, a density of zero gives
    zero, and so does a row out of reach of every component with draws.
    """
    counts = np.asarray(counts, dtype=np.float64)
    used = counts > 0
    top = log_q[:, used].max(axis=1)
    reached = np.isfinite(top)
    with np.errstate(over="ignore"):
        relative = np.exp(np.where(reached[:, None], log_q, -np.inf) - np.where(reached, top, 0.0)[:, None])
    mix = np.where(reached, relative[:, used] @ counts[used], 1.0)
    return relative * (float(counts.sum()) / mix)[:, None]


def own_correction(round_: RoundDraws) -> FloatArray:
    """[n] scored minus sampled log-probability under the draw's own component.

    Its exponential turns an average over the law as sampled into one over the law as scored.
    """
    component = np.asarray(round_.component, dtype=np.int64)
    return round_.log_q[np.arange(len(component)), component] - round_.log_q_sample


def log_weights(round_: RoundDraws, *, corrected: bool) -> FloatArray:
    """[n] log weights of a round's draws; with ``corrected`` the numerics' own correction is included.

    Either way the mean of w * f over the round is unbiased for E_p f with p as scored, provided that the
    sampling pass and the scoring pass agree (not corrected) or not even that (corrected).
    """
    log_w = mixture_log_weights(round_.log_q, round_.expected)
    return log_w + own_correction(round_) if corrected else log_w
