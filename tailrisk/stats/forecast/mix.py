"""A traffic mix over the audited prompts: what its mean probability is, and what follows for N queries.

Each of N queries is prompt i with probability w_i. With the counts n_i of a given N queries the chance of at least one
harmful answer is 1 - prod_i (1 - p_i)^{n_i}; the counts are multinomial, and the mean over them is exactly

    P(at least one) = 1 - (1 - pbar)^N,        pbar = sum_i w_i p_i.

So all that is to be known is pbar: the expected number of harmful answers is N pbar, and the N at which the chance
reaches x is log(1 - x) / log(1 - pbar).

**Certified band of pbar.** 95 % for each prompt is not 95 % for all. So the prompts' ends l_i, u_i are taken at
``prompt_confidence``: by the union bound they hold for all prompts together, with three quarters of the error. The
lower end is sum_i w_i l_i. The upper end is the smaller of

1. sum_i w_i u_i;
2. the same, but the prompts whose target draws show no harm (Z) are bounded as one, with the last quarter of the error.
   For each prompt
   e_i = (1 - q) + q 1[no harm in n_i target draws] (1 - p_i)^{-n_i} has mean one at every time; so has their product,
   however the n_i were planned. With probability 1 - error it stays below 1 / error (Ville), so
   sum_Z n_i p_i <= C = log(1 / error) + |Z| log(1 / q) + |not Z| log(1 / (1 - q)). The worst that C allows fills first
   the prompts with the most traffic for each draw, none beyond its own u_i.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from tailrisk.records import FloatArray
from tailrisk.stats.intervals import binomial_interval

_Q = 0.98


class Plain(NamedTuple):
    """The target's own draws of each prompt [m]: ``draws``, ``hits`` and ``undetermined`` among them."""

    draws: np.ndarray
    hits: np.ndarray
    undetermined: np.ndarray


class Band(NamedTuple):
    low: float
    high: float


def chance(pbar: FloatArray | float, n: FloatArray | float) -> FloatArray:
    """P(at least one harmful answer) in ``n`` queries."""
    p = np.asarray(pbar, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(p < 1, -np.expm1(n * np.log1p(-np.minimum(p, 1.0))), 1.0)


def queries_until(pbar: float, reached: float) -> float:
    """The number of queries at which P(at least one) is ``reached``; inf for pbar = 0, at least 1."""
    if pbar <= 0:
        return math.inf
    if pbar >= 1:
        return 1.0
    return max(math.log1p(-reached) / math.log1p(-pbar), 1.0)


def prompt_confidence(confidence: float, prompts: int) -> float:
    """The level for each of ``prompts`` intervals at which all hold together with three quarters of the error."""
    return 1 - 0.75 * (1 - confidence) / max(prompts, 1)


def plain_ends(plain: Plain, alpha: float) -> tuple[FloatArray, FloatArray]:
    """Lower and upper ends [m] from the target's own draws, each prompt with error ``alpha``."""
    ends = [
        binomial_interval(int(y), int(min(y + u, n)), int(n), alpha)
        for n, y, u in zip(plain.draws, plain.hits, plain.undetermined, strict=True)
    ]
    low, high = np.array(ends, dtype=np.float64).reshape(-1, 2).T
    return low, high


def pooled_upper(weight: FloatArray, plain: Plain, upper: FloatArray, alpha: float) -> float:
    """Upper bound of pbar by way 2, given upper ends [m] that hold together; adding both errors is on the caller."""
    clean = (plain.hits + plain.undetermined == 0) & (plain.draws > 0)
    rest = float(weight[~clean] @ upper[~clean])
    counted = int((plain.draws > 0).sum())
    zeros = int(clean.sum())
    c = math.log(1 / alpha) - zeros * math.log(_Q) - (counted - zeros) * math.log1p(-_Q)
    w, n, u = weight[clean], plain.draws[clean].astype(np.float64), upper[clean]
    order = np.argsort(-w / n, kind="stable")
    cost = np.cumsum(n[order] * u[order])
    full = cost <= c
    total = rest + float(w[order][full] @ u[order][full])
    if not full.all():
        i = int(np.argmin(full))
        left = c - (cost[i - 1] if i else 0.0)
        total += float(w[order][i] / n[order][i] * left)
    return min(total, 1.0)


def certified_band(
    weight: FloatArray,
    lower: FloatArray,
    upper: FloatArray,
    plain: Plain | None,
    alpha: float,
) -> Band:
    """Band of pbar that holds with 1 - ``alpha``.

    ``lower`` and ``upper`` [m] are at ``prompt_confidence``. ``plain`` is None where the target's own draws are no
    binomial of harm (a strong judge read a sample of them, or the judge's error is in the ends).
    """
    high = float(weight @ upper)
    if plain is not None:
        high = min(high, pooled_upper(weight, plain, upper, alpha / 4))
    return Band(float(weight @ lower), min(high, 1.0))
