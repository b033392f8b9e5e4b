"""Weights of harmful draws for a fit: self-normalised for each prompt, tempered where few of them decide.

The fit maximises sum_c sum_i v_ci log q(y_ci | c), with v_ci proportional to the draw's part of the prompt's
estimate, raised to a power gamma, and summing to one over each prompt's hits (Rubinstein & Kroese, "The
Cross-Entropy Method", 2004, with the smoothing of weights by a power as in tempered importance sampling). gamma = 1
is the cross-entropy itself; gamma = 0 lets every hit of a prompt count alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tailrisk.records import FloatArray

_HALVINGS = 50


class Tempered(NamedTuple):
    """``weights``: one array a prompt, each summing to one. ``ess``: effective hits over all prompts, as
    (sum v)^2 / sum v^2."""

    weights: list[FloatArray]
    gamma: float
    ess: float


def tempered(log_parts: Sequence[FloatArray], floor: float) -> Tempered:
    """The weights with the largest ``gamma`` <= 1 whose ESS is at least ``floor``; gamma 0 where none is.

    ``log_parts``: for each prompt the logarithms [h] of what its hits add to its estimate, h >= 1, finite; a
    constant may be missing from each. Errors: ValueError for a prompt without hits or a value that is not finite.
    """
    if not log_parts:
        raise ValueError("no prompt has hits")
    for parts in log_parts:
        if not len(parts) or not np.isfinite(parts).all():
            raise ValueError("every prompt needs hits with finite weights")
    if (whole := _at(log_parts, 1.0)).ess >= floor:
        return whole
    # The sum of squares grows with gamma, so the ESS falls.
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if _at(log_parts, middle).ess >= floor else (low, middle)
    return _at(log_parts, low)


def _at(log_parts: Sequence[FloatArray], gamma: float) -> Tempered:
    weights = []
    for parts in log_parts:
        v = np.exp(gamma * (parts - parts.max()))
        weights.append(v / v.sum())
    squares = sum(float(np.square(v).sum()) for v in weights)
    return Tempered(weights, gamma, len(weights) ** 2 / squares)


def hit_divergence(log_parts: FloatArray, log_ratio: FloatArray, log_estimate: float) -> float:
    """KL(q*||q) in nats of one prompt, q* = p h / mu being the law of its harmful answers, estimated by its hits.

    KL = E_q*[log p - log q] - log mu, the expectation self-normalised over hits. ``log_parts`` [h] as in
    ``tempered``; ``log_ratio`` [h] log p - log q of each, ``+inf`` where q cannot produce it;
    ``log_estimate`` the logarithm of the prompt's estimate of mu.
    """
    v = np.exp(log_parts - log_parts.max())
    seen = v > 0.0
    return float(v[seen] @ log_ratio[seen] / v.sum() - log_estimate)
