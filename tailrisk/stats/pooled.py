"""Figures over all prompts: the pooled mean weight and the mean risk."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tailrisk.stats.estimate import Estimate


class Pooled(NamedTuple):
    """A mean over prompts and its standard error; ``n`` prompts. NaN where there are none."""

    value: float
    standard_error: float
    n: int

    def z(self, truth: float = 1.0) -> float:
        """Distance from ``truth`` in standard errors; 0 if it is met exactly, inf if only the error is 0."""
        if self.value == truth:
            return 0.0
        return abs(self.value - truth) / self.standard_error if self.standard_error > 0 else float("inf")


def pooled_mean_weight(estimates: Sequence[Estimate]) -> Pooled:
    """Mean weight over prompts, each weighted by its draws: one if samplers and log-probabilities agree.

    The standard error is the larger of the one that follows from the prompts' own standard errors and the
    one from the spread between prompts, because a component that met none of the target's usual answers
    has no spread of its own to show.
    """
    rows = [
        (e.draws, e.mean_weight, e.mean_weight_se)
        for e in estimates
        if e.mean_weight is not None and e.mean_weight_se is not None
    ]
    if not rows:
        return Pooled(float("nan"), float("nan"), 0)
    draws, means, errors = (np.array(column, dtype=np.float64) for column in zip(*rows, strict=True))
    share = draws / draws.sum()
    mean = float(share @ means)
    within = float(np.sqrt(np.square(share * errors).sum()))
    n = len(rows)
    between = float(np.sqrt(np.square(share * (means - mean)).sum() * n / (n - 1))) if n > 1 else 0.0
    return Pooled(mean, max(within, between), n)


def mean_risk(estimates: Sequence[Estimate]) -> Pooled:
    """Mean probability of harm over the prompts that have draws, with the standard error of the draws.

    It says how well these prompts are measured, not how they vary. Prompts without hits add zero.
    """
    rows = [(e.estimate, e.standard_error) for e in estimates if e.draws > 0]
    if not rows:
        return Pooled(float("nan"), float("nan"), 0)
    values, errors = (np.array(column, dtype=np.float64) for column in zip(*rows, strict=True))
    return Pooled(float(values.mean()), float(np.sqrt(np.square(errors).sum())) / len(rows), len(rows))
