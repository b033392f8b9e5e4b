"""Beyond the audited prompts: a straight tail in psi = -log(-log p).

Jones et al. 2025 ("Forecasting Rare Language Model Behaviors", arXiv 2502.16797): the log of the share of prompts above
psi is a line a psi + b far out in the tail. The line is fitted by least squares of log rank on psi for the top k of m
prompts, and read at the share 1/n: the worst of n fresh prompts. The rank of the i-th prompt is (i - 1/2) / m (Gabaix
and Ibragimov 2011: with i / m the slope is biased). A prompt of a group of s counts 1/s.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.special import comb, log_expit

from tailrisk.records import FloatArray

TOPS = (5, 10, 20, 50)
"""Sizes of the top that are fitted."""
TOP = 10
"""The size that Jones et al. use."""


class Line(NamedTuple):
    """log share = slope * psi + level, slope < 0."""

    slope: float
    level: float

    def psi(self, share: FloatArray | float) -> FloatArray:
        """psi above which ``share`` of the prompts lie."""
        return (np.log(share) - self.level) / self.slope

    def above(self, share: FloatArray) -> FloatArray:
        """p that ``share`` of the prompts exceed."""
        return probability(self.psi(share))


def psi_of(theta: FloatArray) -> FloatArray:
    """-log(-log p) of p = expit(theta)."""
    return -np.log(-log_expit(theta))


def probability(psi: FloatArray) -> FloatArray:
    return np.exp(-np.exp(-np.asarray(psi, dtype=np.float64)))


def ranked(psi: FloatArray, weight: FloatArray) -> tuple[FloatArray, FloatArray, np.ndarray]:
    """psi from the largest down, the share of prompts above each (half of itself counted), and the order."""
    kept = np.flatnonzero(weight > 0)
    order = kept[np.argsort(-psi[kept], kind="stable")]
    w = weight[order]
    return psi[order], (np.cumsum(w) - w / 2) / w.sum(), order


def fit_line(psi: FloatArray, share: FloatArray) -> Line | None:
    """Least squares of log ``share`` on ``psi``; None where they do not fall together."""
    x = psi - psi.mean()
    y = np.log(share)
    square = float(x @ x)
    slope = float(x @ y) / square if square > 0 else 0.0
    return Line(slope, float(y.mean() - slope * psi.mean())) if slope < 0 else None


def top_line(psi: FloatArray, share: FloatArray, weight: FloatArray, k: int) -> Line | None:
    """The line of the top ``k`` base prompts. All sorted, the largest psi first; ``weight`` [m] in base prompts."""
    last = int(np.searchsorted(np.cumsum(weight), k - 1e-9)) + 1
    return fit_line(psi[:last], share[:last]) if 2 < last <= len(psi) else None


def tail_mean(above: Callable[[FloatArray], FloatArray], share: float) -> float:
    """Integral of p over the ``share`` of prompts at the top, ``above(u)`` being the p that a share u exceeds."""
    t = np.linspace(0.0, 30.0, 241)
    u = share * np.exp(-t)
    y = above(u) * u
    return float(((y[1:] + y[:-1]) / 2).sum() * (t[1] - t[0]))


class Straightness(NamedTuple):
    """Tests of a straight tail; both p-values are exact or nearly so for independent psi with an exponential tail."""

    gap: float
    """p-value of the largest gap (Fisher's g)."""
    bend: float
    """p-value of a trend in the gaps, two-sided."""


def straightness(psi: FloatArray) -> Straightness:
    """Of the largest k + 1 values, from the largest down.

    With an exponential tail the spacings i (psi_i - psi_{i+1}) are independent and exponential with one mean (Renyi
    1953). A largest one that is too large is a gap (Fisher 1929): a second kind of prompts; a trend is a bent tail.
    """
    k = len(psi) - 1
    i = np.arange(1, k + 1)
    e = i * (psi[:-1] - psi[1:])
    total = float(e.sum())
    if k < 3 or total <= 0:
        return Straightness(1.0, 1.0)
    g = float(e.max()) / total
    j = np.arange(1, min(math.floor(1 / g), k) + 1)
    gap = float(np.sum((-1.0) ** (j - 1) * comb(k, j) * np.maximum(1 - j * g, 0.0) ** (k - 1)))
    centred = i - i.mean()
    # e / mean(e) is k times a flat Dirichlet vector: variance (k - 1) / (k + 1), covariances -1 / (k + 1).
    z = float(centred @ e) / (total / k) / math.sqrt(float(centred @ centred) * k / (k + 1))
    return Straightness(min(max(gap, 0.0), 1.0), math.erfc(abs(z) / math.sqrt(2)))
