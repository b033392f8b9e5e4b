"""A number with errors that may differ by direction, and means of such numbers over prompts.

Where verdicts are undetermined a lower end counts them in one way and an upper end in the other, so that each direction
has a value, a standard error and degrees of freedom of its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import stdtr, stdtrit

from tailrisk.records import FloatArray
from tailrisk.stats.judgeerror import Interval
from tailrisk.stats.sides import Working

NORMAL = 1e12
"""Degrees of freedom with which Student's t is the normal law; scipy takes no infinite ones."""


class Estimated(NamedTuple):
    """A number with errors: ``low`` (value, standard error, df) for the question whether it is above zero and the lower
    end, ``high`` for the other direction. They differ where verdicts are undetermined."""

    low: tuple[float, float, float]
    high: tuple[float, float, float]

    def interval(self, alpha: float) -> Interval:
        (low, se_low, df_low), (high, se_high, df_high) = self
        t_low, t_high = (float(-stdtrit(df, alpha / 2)) for df in (df_low, df_high))
        return low - t_low * se_low, high + t_high * se_high

    @property
    def p(self) -> tuple[float, bool]:
        """Two-sided, and whether it is towards above zero."""
        above = float(stdtr(self.low[2], -self.low[0] / self.low[1]))
        below = float(stdtr(self.high[2], self.high[0] / self.high[1]))
        return min(2 * min(above, below), 1.0), above < below


def welch(variances: Sequence[float], dfs: Sequence[float]) -> float:
    """Degrees of freedom of a sum of independent errors (Satterthwaite)."""
    spread = sum(v * v / df for v, df in zip(variances, dfs, strict=True))
    return min(sum(variances) ** 2 / spread, NORMAL) if spread > 0 else NORMAL


def exponential(log: Interval) -> Interval:
    return math.exp(max(log[0], -700.0)), math.exp(min(log[1], 700.0))


class Mean(NamedTuple):
    """A mean over ``prompts`` prompts; ``spread``: standard deviation between them, where that is in its error."""

    value: float
    estimated: Estimated
    prompts: int
    spread: float | None = None


def mean_difference(sides: Sequence[tuple[Working, Working]]) -> Mean:
    """Of b - a, from (a, b) of each prompt; the error is that of the draws."""

    def of(top: str, bottom: str) -> tuple[float, float, float]:
        values = [(getattr(b, top), b.df, getattr(a, bottom), a.df) for a, b in sides]
        mean = float(np.mean([x[0] - y[0] for x, _, y, _ in values]))
        errors = [(x[1] ** 2, df) for x, df, _, _ in values] + [(y[1] ** 2, df) for _, _, y, df in values]
        variances, dfs = zip(*errors, strict=True)
        return mean, math.sqrt(sum(variances)) / len(sides), welch(variances, dfs)

    value = float(np.mean([b.low[0] - a.low[0] for a, b in sides]))
    return Mean(value, Estimated(of("low", "high"), of("high", "low")), len(sides))


def mean_with_spread(numbers: Sequence[Estimated]) -> Mean:
    """With random effects: of prompts like these."""
    low, spread = random_effects(*_columns([x.low for x in numbers]))
    high, _ = random_effects(*_columns([x.high for x in numbers]))
    return Mean((low[0] + high[0]) / 2, Estimated(low, high), len(numbers), spread)


def _columns(rows: Sequence[tuple[float, float, float]]) -> tuple[FloatArray, FloatArray]:
    values, errors, _ = np.array(rows, dtype=np.float64).T
    return values, errors**2


def random_effects(values: FloatArray, variances: FloatArray) -> tuple[tuple[float, float, float], float]:
    """(mean, standard error, df) over k values that differ by more than their errors, and the standard deviation
    between them: DerSimonian and Laird (1986) with the error of Hartung and Knapp (2001), at least that of a fixed
    spread."""
    k = len(values)
    w = 1 / variances
    fixed = float(w @ values / w.sum())
    q = float(w @ np.square(values - fixed))
    between = max((q - (k - 1)) / float(w.sum() - np.square(w).sum() / w.sum()), 0.0)
    return spread_mean(values, variances, between), math.sqrt(between)


def spread_mean(values: FloatArray, variances: FloatArray, between: float) -> tuple[float, float, float]:
    """(mean, standard error, df) with a variance ``between`` the values beside their own ``variances``: the error of
    Hartung and Knapp (2001), at least that of a fixed spread."""
    w = 1 / (variances + between)
    mean = float(w @ values / w.sum())
    scale = max(float(w @ np.square(values - mean)) / (len(values) - 1), 1.0)
    return mean, math.sqrt(scale / float(w.sum())), float(len(values) - 1)
