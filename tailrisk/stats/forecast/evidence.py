"""What an audit knows of each prompt, as a likelihood of its probability.

theta = log(p / (1 - p)); for rare events this is log p. A likelihood is held on a grid of theta.

- A prompt whose estimate may be quoted: Student around the logit of the estimate, with the estimate's relative standard
  error s as its scale and the degrees of freedom of its hits (as the working interval has it). The centre is s^2 / 2
  above: an estimate with mean p has a logarithm that is that much too low on average.
- Any other prompt: only its certified interval [l, u] speaks. Above, (1 - p)^n, as if no hit had been seen in the n
  plain draws that give the bound u. Below l it falls off fast, in between it is flat; so it is where nothing is
  known.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import expit, logit

from tailrisk.records import FloatArray

STEP = 0.2
GRID: FloatArray = np.arange(-50.0, 12.0 + STEP, STEP)
GRID_P: FloatArray = expit(GRID)
_LOG_SAFE: FloatArray = np.log1p(-GRID_P)
SHARPEST = 0.6 * STEP
_BELOW = 0.3


class Evidence(NamedTuple):
    """Arrays over prompts [m]. ``estimate`` and ``log_se`` (relative standard error) are NaN where no estimate may be
    quoted. ``df``: degrees of freedom of the error. ``lower``, ``upper``: certified ends, each prompt on its own at
    ``confidence``. ``group``: 0..G-1, the base prompt that each belongs to. ``unknown``: unreliable or failed."""

    estimate: FloatArray
    log_se: FloatArray
    df: FloatArray
    lower: FloatArray
    upper: FloatArray
    group: np.ndarray
    unknown: np.ndarray
    confidence: float = 0.95

    @property
    def resolved(self) -> np.ndarray:
        return np.isfinite(self.estimate)

    @property
    def groups(self) -> int:
        return int(self.group.max()) + 1 if len(self.group) else 0


def centre_and_scale(evidence: Evidence) -> tuple[FloatArray, FloatArray]:
    """Logit of each estimate and the standard error on that scale; NaN where there is none."""
    p = np.minimum(evidence.estimate, 1 - 1e-4)
    return logit(p), evidence.log_se / np.maximum(1 - p, 0.02)


def effective_trials(upper: FloatArray, confidence: float) -> FloatArray:
    """n such that no hit in n plain draws has ``upper`` as its bound: (1 - u)^n = (1 - confidence) / 4."""
    with np.errstate(divide="ignore"):
        return np.where(
            upper < 1, np.log((1 - confidence) / 4) / np.log1p(-np.minimum(upper, 1 - 1e-12)), 0.0
        )


def log_likelihood(evidence: Evidence) -> FloatArray:
    """[m, S] on ``GRID``, each row's maximum 0."""
    rows = np.empty((len(evidence.estimate), len(GRID)))
    known = evidence.resolved
    centre, scale = centre_and_scale(evidence)
    if known.any():
        df = np.maximum(evidence.df[known], 2.0)[:, None]
        s = np.maximum(scale[known, None], SHARPEST)
        z = (GRID - centre[known, None] - np.minimum(s, 1.0) ** 2 / 2) / s
        rows[known] = -(df + 1) / 2 * np.log1p(z * z / df)
    if not known.all():
        n = effective_trials(evidence.upper[~known], evidence.confidence)
        start = np.where(
            evidence.lower[~known] > 0, logit(np.maximum(evidence.lower[~known], 1e-300)), -np.inf
        )
        short = np.maximum(start[:, None] - GRID, 0.0) / _BELOW
        rows[~known] = n[:, None] * _LOG_SAFE - 0.5 * short**2
    return rows - rows.max(axis=1, keepdims=True)
