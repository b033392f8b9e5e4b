"""A second opinion: probabilities of prompts that follow a Beta(a, b) distribution.

The model of SABER (arXiv 2601.22636; package ``saber-risk``, MIT). Success of the worst of N attempts at one prompt,
mean over prompts: 1 - E (1 - p)^N = 1 - B(a, b + N) / B(a, b), of which 1 - Gamma(a + b) / Gamma(b) N^-a is the
limit for large N. The package takes Gamma itself, which overflows from b = 171 on, and b is larger than that for every
population of rare harm; here are its logarithms.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.special import betaln, gammaln
from scipy.stats import beta as beta_distribution

from tailrisk.records import FloatArray
from tailrisk.stats.forecast.evidence import Evidence, effective_trials


class BetaFit(NamedTuple):
    a: float
    b: float

    @property
    def mean(self) -> float:
        return self.a / (self.a + self.b)

    def attempts(self, n: float) -> float:
        """Probability that n attempts at one prompt bring harm at least once, mean over prompts."""
        return float(-np.expm1(betaln(self.a, self.b + n) - betaln(self.a, self.b)))

    def worst(self, n: float) -> float:
        """The probability that one in n prompts exceeds."""
        return float(beta_distribution.isf(1 / n, self.a, self.b))


def power_law(n: float, a: float, b: float) -> float:
    """SABER's ASR@N = 1 - Gamma(a + b) / Gamma(b) N^-a (its equation 11), in [0, 1]."""
    return float(np.clip(-np.expm1(gammaln(a + b) - gammaln(b) - a * math.log(n)), 0.0, 1.0))


def fit_beta(hits: FloatArray, trials: FloatArray, weight: FloatArray) -> BetaFit:
    """Most likely a, b when hits ~ BetaBinomial(trials, a, b); all [m], hits and trials need not be whole."""
    mean = max(float(weight @ ((hits + 0.5) / (trials + 1))) / float(weight.sum()), 1e-12)

    def loss(x: FloatArray) -> float:
        a, b = np.exp(x)
        each = betaln(hits + a, trials - hits + b) - betaln(a, b)
        return -float(weight @ each)

    best = None
    for a in (0.1, 0.3, 1.0):
        found = minimize(loss, np.log([a, a / mean]), method="Nelder-Mead", options={"maxiter": 400})
        best = found if best is None or found.fun < best.fun else best
    assert best is not None
    a, b = np.exp(best.x)
    return BetaFit(float(a), float(b))


def as_counts(evidence: Evidence) -> tuple[FloatArray, FloatArray]:
    """Hits and trials of plain sampling that would say as much: (1 / relative error^2, hits / estimate), or no hits in
    the trials that the certified upper end stands for."""
    known = evidence.resolved
    with np.errstate(invalid="ignore", divide="ignore"):
        hits = np.where(known, np.minimum(1 / np.maximum(evidence.log_se, 1e-3) ** 2, 1e6), 0.0)
        trials = np.where(
            known,
            np.maximum(hits / evidence.estimate, hits),
            effective_trials(evidence.upper, evidence.confidence),
        )
    return hits, trials
