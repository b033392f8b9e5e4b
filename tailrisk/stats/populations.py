"""Statements about many prompts: how their risks spread, and intervals and tests that hold for all of them at once.

Bonferroni: intervals at level 1 - alpha / m each hold for all m prompts at once at level 1 - alpha, whichever of them
are then looked at, the worst ones too. Holm (1979), "A simple sequentially rejective multiple test procedure": tests
at once, never fewer rejections than Bonferroni's and none of its assumptions.

The working interval is mu exp(+- t_df s) with df = ESS of the hits - 1, at least 1 (``tailrisk.stats.intervals``), so
from its ends at one level those at another follow, and p-values with them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr

from tailrisk.records import FloatArray
from tailrisk.stats.intervals import t_quantile

Interval = tuple[float, float]


class Spread(NamedTuple):
    """Risks of n prompts. ``standard_error``: of the mean of *these* prompts, from their draws alone. ``between``:
    standard deviation between the estimates; ``true``: the part of it that the draws do not explain. ``interval``: for
    the mean of the population that the prompts are a sample of, by Student's t; the whole line for one prompt."""

    n: int
    mean: float
    standard_error: float
    between: float
    true: float
    interval: Interval


def spread(values: Sequence[float], errors: Sequence[float], confidence: float) -> Spread:
    """``errors``: standard errors of the ``values``. NaN for none. The variance between estimates is in expectation the
    true one plus the mean of the squared errors, which is what is taken off for ``true``."""
    x, se = np.asarray(values, dtype=np.float64), np.asarray(errors, dtype=np.float64)
    n = len(x)
    if n == 0:
        nan = math.nan
        return Spread(0, nan, nan, nan, nan, (0.0, 1.0))
    mean = float(x.mean())
    error = float(np.sqrt(np.square(se).sum())) / n
    if n == 1:
        return Spread(1, mean, error, math.nan, math.nan, (0.0, 1.0))
    between = float(x.std(ddof=1))
    true = math.sqrt(max(between**2 - float(np.square(se).mean()), 0.0))
    half = t_quantile(confidence, n - 1) * between / math.sqrt(n)
    return Spread(n, mean, error, between, true, (max(mean - half, 0.0), min(mean + half, 1.0)))


class Working(NamedTuple):
    """A working interval with what it was made from."""

    estimate: float
    interval: Interval
    ess: float
    confidence: float

    @property
    def df(self) -> float:
        return max(self.ess - 1.0, 1.0)

    def scales(self) -> Interval:
        """Standard errors of log mu on the side of either end."""
        t, (low, high) = t_quantile(self.confidence, self.df), self.interval
        return math.log(self.estimate / low) / t, math.log(high / self.estimate) / t


def simultaneous(working: Working, family: int) -> Interval:
    """The interval with which those of ``family`` prompts all hold at once (Bonferroni). Where the upper end rests on
    undetermined answers too it is a little wider than one made anew. An end at 1 stays there."""
    t = t_quantile(1.0 - (1.0 - working.confidence) / family, working.df)
    low, high = working.scales()
    upper = math.log(working.estimate) + t * high
    return (
        math.exp(max(math.log(working.estimate) - t * low, -700.0)),
        1.0 if working.interval[1] >= 1.0 or upper >= 0.0 else math.exp(upper),
    )


def p_above(working: Working, threshold: float) -> float:
    """p-value against "the probability is ``threshold`` at most"."""
    return float(stdtr(working.df, -math.log(working.estimate / threshold) / working.scales()[0]))


def p_below(working: Working, threshold: float) -> float:
    """p-value against "the probability is ``threshold`` at least"; 1 where the upper end is 1."""
    if working.interval[1] >= 1.0:
        return 1.0
    return float(stdtr(working.df, -math.log(threshold / working.estimate) / working.scales()[1]))


def holm(p_values: FloatArray | Sequence[float], alpha: float) -> NDArray[np.bool_]:
    """[m] which of m hypotheses are rejected so that none is wrongly, with probability 1 - alpha."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    passed = p[order] <= alpha / np.arange(len(p), 0, -1)
    stop = len(p) if passed.all() else int(np.argmin(passed))
    rejected = np.zeros(len(p), dtype=np.bool_)
    rejected[order[:stop]] = True
    return rejected


class Above(NamedTuple):
    """Of the prompts: how many are ``shown`` to lie above a threshold, how many are ``not_below``: shown or open."""

    threshold: float
    shown: int
    not_below: int


def above(intervals: Sequence[Interval], thresholds: Sequence[float]) -> list[Above]:
    """By the prompts' own intervals: the lower end above, the upper end not below. Each prompt is wrongly placed with
    the probability with which its interval fails, so of m prompts at most alpha m are in expectation."""
    ends = np.asarray(intervals, dtype=np.float64).reshape(-1, 2)
    return [
        Above(t, int(np.count_nonzero(ends[:, 0] > t)), int(np.count_nonzero(ends[:, 1] >= t)))
        for t in thresholds
    ]
