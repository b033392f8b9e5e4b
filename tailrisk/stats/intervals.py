"""Certified intervals that hold at every number of draws, and the working interval.

Betting (Waudby-Smith & Ramdas 2024, "Estimating means of bounded random variables by betting"). For a
candidate m the capital of a gambler who bets against "the mean of X = w h is m" is a product over draws;
at the true mean it has expectation at most one, so by Ville's inequality it ever reaches 1/alpha with
probability alpha at most, and every m at which it is 1/alpha or more is rejected.

Our draws are stratified: n_k of component k, fixed before the round, not drawn from a mixture. With the
same bet b for all draws of a round, E prod_i (1 + b (X_i - m)) = prod_k (1 + b (mu_k - m))^{n_k}, which by
the inequality of arithmetic and geometric means is at most (1 + b (sum_k beta_k mu_k - m))^n = 1, because
sum_k beta_k mu_k = m for the balance-heuristic weights. So the capital is a supermartingale *from round end
to round end* (not inside a round, nor for a bet that changes inside a round), and stopping and planning by
rounds keep the guarantee. Strata only make it more conservative.

The upper side needs X <= B. B = 1/beta_r0 differs from round to round, and so does the bet.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.special import betaln, stdtrit, xlog1py, xlogy

from tailrisk.records import FloatArray

_LOWER_BETS = np.concatenate([np.geomspace(1e-7, 0.1, 25), [0.17, 0.3, 0.5, 0.7, 0.9, 0.99]])
_UPPER_BETS = np.concatenate([np.geomspace(1e-3, 0.3, 9), [0.5, 0.7, 0.85, 0.95, 0.999]])
_LOWER_LOST = np.log1p(-_LOWER_BETS)
_PRIOR = (0.1, 1.0)
_BIN = 0.005
_SMALLEST = 1e-300


class Bounded(NamedTuple):
    """The values X of one round: the non-zero ones, how many are zero, and the bound on all."""

    values: FloatArray
    zeros: int
    bound: float


def _binned(values: FloatArray, *, up: bool) -> tuple[FloatArray, FloatArray]:
    """Distinct values and their counts; many values are rounded to the safe side on a grid of 0.5 %."""
    x = np.sort(values[values > 0])
    if len(x) == 0:
        return x, x
    if len(x) > 400:
        cell = np.log(x) / _BIN
        edge = np.exp((np.ceil(cell) if up else np.floor(cell)) * _BIN)
        x = np.maximum(edge, x) if up else np.minimum(edge, x)
        # Rounding may split a cell by one unit in the last place; the order is kept, so unique still works.
    edges = np.concatenate([[0], np.flatnonzero(x[1:] != x[:-1]) + 1, [len(x)]])
    return x[edges[:-1]], (edges[1:] - edges[:-1]).astype(np.float64)


def _log_mean_exp(x: FloatArray) -> float:
    top = np.maximum.reduce(x)
    return float(top + np.log(np.add.reduce(np.exp(x - top)) / len(x)))


def _crossing(f: Callable[[float], float], inside: float, outside: float) -> float:
    """The point between ``inside`` (f < 0) and ``outside`` (f >= 0), in log m, on the outer side."""
    step = 1e-7
    root: Any = brentq(f, np.log(inside), np.log(outside), xtol=step)
    return float(np.exp(root + (step if outside > inside else -step)))


def betting_lower(values: FloatArray, zeros: int, alpha: float, *, enough: float = 0.0) -> float:
    """Lower confidence bound for the mean of X >= 0, unbounded X included; 0 without a non-zero value.

    Valid over all rounds at once: with a bet c/m the factor is 1 - c + c X/m whatever the round. A bound that is
    not above ``enough`` is not looked for: 0 then, after one step in the place of a dozen.
    """
    x, count = _binned(values, up=False)
    if len(x) == 0:
        return 0.0
    threshold = np.log(1.0 / alpha)
    lost = zeros + float((values == 0).sum())
    fixed, bets = lost * _LOWER_LOST, _LOWER_BETS[:, None]

    def excess(log_m: float) -> float:
        capital = np.log1p(bets * (x / np.exp(log_m) - 1.0)) @ count + fixed
        return _log_mean_exp(capital) - threshold

    # The capital falls as m grows, so where this m is not rejected the bound lies below it.
    if 0.0 < enough < 1.0 and excess(float(np.log(enough))) < 0:
        return 0.0
    # At the sample mean no constant bet can have won anything.
    inside = float(x @ count) / (lost + float(count.sum()))
    if inside >= 1.0:
        if excess(0.0) >= 0:
            return 1.0
        inside = 1.0
    outside = inside / 2
    while excess(np.log(outside)) < 0:
        outside /= 4
        if outside < _SMALLEST:
            return 0.0
    return _crossing(excess, inside, outside)


def betting_upper(rounds: Sequence[Bounded], alpha: float, *, enough: float = 1.0) -> float:
    """Upper confidence bound for the common mean of X in [0, B_r]; one if nothing below is rejected.

    A bound that is not below ``enough`` is not looked for: one then."""
    if not any(len(r.values) for r in rounds):
        return _upper_of_zeros(tuple((r.zeros, r.bound) for r in rounds), alpha)
    return _betting_upper(rounds, alpha, enough)


@functools.lru_cache(maxsize=4096)
def _upper_of_zeros(rounds: tuple[tuple[int, float], ...], alpha: float) -> float:
    """Prompts without a hit that were planned alike have the same bound, and there may be thousands of them."""
    return _betting_upper([Bounded(np.empty(0), zeros, bound) for zeros, bound in rounds], alpha, 1.0)


def _betting_upper(rounds: Sequence[Bounded], alpha: float, enough: float) -> float:
    threshold = np.log(1.0 / alpha)
    data = [(*_binned(np.minimum(r.values, r.bound), up=True), r) for r in rounds if np.isfinite(r.bound)]
    if not data:
        return 1.0
    terms = [
        (np.minimum(x, r.bound), count, r.zeros + float((r.values == 0).sum()), r.bound)
        for x, count, r in data
    ]

    def excess(log_m: float) -> float:
        m = np.exp(log_m)
        capital = np.zeros(len(_UPPER_BETS))
        for x, count, zeros, bound in terms:
            room = bound - m
            if room <= 0:
                return -threshold
            bet = _UPPER_BETS / room
            lost = zeros * np.log1p(bet * m)
            capital += np.log1p(-bet[:, None] * (x - m)) @ count + lost if len(x) else lost
        return _log_mean_exp(capital) - threshold

    # The capital grows with m, so where this m is not rejected the bound lies above it.
    if 0.0 < enough < 1.0 and excess(float(np.log(enough))) < 0:
        return 1.0
    draws = sum(float(count.sum()) + r.zeros for _, count, r in data)
    inside = min(max(sum(float(x @ count) for x, count, _ in data) / draws, 1e-12), 0.5)
    while excess(np.log(inside)) >= 0:
        inside /= 4
        if inside < _SMALLEST:
            return 0.0
    largest = 1.0 - 1e-9
    outside = min(2 * inside, largest)
    while excess(np.log(outside)) < 0:
        if outside >= largest:
            return 1.0
        outside = min(2 * outside, largest)
    return min(_crossing(excess, inside, outside), 1.0)


@functools.lru_cache(maxsize=65536)
def binomial_interval(low_hits: int, high_hits: int, n: int, alpha: float) -> tuple[float, float]:
    """Bounds for a probability from n independent trials, valid at every n at once.

    m is rejected when the beta-binomial mixture martingale B(a+S, b+n-S) / (B(a,b) m^S (1-m)^(n-S)) reaches
    1/alpha (Robbins 1970), prior Beta(0.1, 1), which favours rare events. The lower bound takes S =
    ``low_hits``, the upper one S = ``high_hits``.
    """
    if n == 0:
        return 0.0, 1.0
    a, b = _PRIOR
    threshold = np.log(1.0 / alpha)

    def excess(s: int) -> Callable[[float], float]:
        mixture = float(betaln(a + s, b + n - s) - betaln(a, b))

        def f(log_m: float) -> float:
            m = np.exp(log_m)
            return mixture - float(xlogy(s, m) + xlog1py(n - s, -m)) - threshold

        return f

    lower = 0.0
    if low_hits > 0:
        outside = low_hits / n / 2
        f = excess(low_hits)
        while f(np.log(outside)) < 0:
            outside /= 4
        lower = _crossing(f, low_hits / n, outside)
    upper = 1.0
    if high_hits < n:
        f = excess(high_hits)
        inside = max(high_hits / n, 1e-12)
        gap = 1.0 - inside
        while f(np.log1p(-gap)) < 0:
            gap /= 4
        outside = 1.0 - gap
        upper = min(_crossing(f, inside, outside), 1.0) if outside > inside else 1.0
    return lower, upper


class Certified(NamedTuple):
    """The certified interval; ``consistent`` is False where its two parts contradict each other."""

    interval: tuple[float, float]
    consistent: bool


def combine_certified(parts: Sequence[tuple[float, float]]) -> Certified:
    """Intersection of intervals; if they exclude each other, the interval that holds them all."""
    low, high = max(p[0] for p in parts), min(p[1] for p in parts)
    if low <= high:
        return Certified((low, high), True)
    return Certified((min(p[0] for p in parts), max(p[1] for p in parts)), False)


def t_quantile(confidence: float, df: float) -> float:
    """Two-sided Student quantile; the normal one for df = inf."""
    return float(stdtrit(df if np.isfinite(df) else 1e12, 0.5 + confidence / 2))


def working_interval(
    low: tuple[float, float], high: tuple[float, float], *, df: float, confidence: float
) -> tuple[float, float]:
    """mu exp(+- t_df se / mu) from (mu, se) pairs: ``low`` for the lower end, ``high`` for the upper one.

    The delta method on log mu; df = ESS of the hits - 1, at least 1. Never above one.
    """
    t = t_quantile(confidence, max(df, 1.0))
    return (
        float(min(low[0] * np.exp(-t * low[1] / low[0]), 1.0)),
        float(min(high[0] * np.exp(min(t * high[1] / high[0], 700.0)), 1.0)),
    )
