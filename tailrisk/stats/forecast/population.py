"""The spread of prompts, with the errors of their estimates taken out, and draws of every prompt's probability from it.

Draws from noisy estimates would count the noise twice: once in the estimates, once in the draws. So the distribution of
theta = logit p over prompts is fitted first (a mixture of two normal distributions, by EM, whose E step integrates
over each prompt's likelihood: empirical Bayes, the "extreme deconvolution" of Bovy, Hogg & Roweis 2011 on a grid), and
each prompt is drawn from its likelihood times that. Drawn so, the draws of all prompts together are spread like the
prompts, not like their estimates.

A draw of all prompts carries three errors: each prompt's own, that of the fitted spread, and (for statements about
other prompts) which base prompts were audited: each draw resamples the base prompts, groups as wholes, and fits again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy.special import expit, ndtr

from tailrisk.records import FloatArray
from tailrisk.stats.forecast.evidence import (
    GRID,
    SHARPEST,
    STEP,
    Evidence,
    centre_and_scale,
    log_likelihood,
)

FEWEST_RESOLVED = 8
"""With fewer quotable estimates no spread is fitted."""
_TWO_MODES_FROM = 30
_NARROWEST = 0.3
_FIRST_STEPS, _NEXT_STEPS = 80, 4
_REFITTED = 5_000
"""With more prompts the error of the fitted spread is nothing beside theirs, and the fit takes long."""


class Population(NamedTuple):
    """A mixture of normal distributions of theta: shares, means, standard deviations [K]."""

    share: FloatArray
    mean: FloatArray
    sd: FloatArray

    def on_grid(self) -> FloatArray:
        """[K, S] probabilities of the grid's cells, each row summing to its share."""
        z = (GRID - self.mean[:, None]) / self.sd[:, None]
        mass = np.exp(-0.5 * z * z)
        return self.share[:, None] * mass / mass.sum(axis=1, keepdims=True)

    def above(self, share: FloatArray) -> FloatArray:
        """p that ``share`` of the prompts exceed."""
        more = ndtr((self.mean[:, None] - GRID) / self.sd[:, None])
        log_more = np.log(np.maximum(self.share @ more, 1e-300))
        return expit(np.interp(np.log(share), log_more[::-1], GRID[::-1]))


def fit_population(likelihood: FloatArray, weight: FloatArray, start: Population, steps: int) -> Population:
    """EM steps from ``start``. ``likelihood`` [m, S] (not its logarithm), ``weight`` [m] of the prompts."""
    found = start
    x, x2 = GRID, GRID * GRID
    for _ in range(steps):
        prior = found.on_grid()
        rows = np.concatenate([prior, prior * x, prior * x2])
        moments = (likelihood @ rows.T).reshape(len(likelihood), 3, -1)
        total = np.maximum(moments[:, 0].sum(axis=1, keepdims=True), 1e-300)
        each = np.einsum("i,ijk->jk", weight, moments / total[:, None])
        count = np.maximum(each[0], 1e-9)
        mean = each[1] / count
        # The floor keeps a mode from closing in on a single prompt; one more prompt's worth of it is added.
        spread = (each[2] - count * mean**2 + _NARROWEST**2) / (count + 1)
        found = Population(count / count.sum(), mean, np.sqrt(np.maximum(spread, _NARROWEST**2)))
    return found


class Draw(NamedTuple):
    """One draw of all prompts [m]: ``theta``; ``weight`` of one resample of the base prompts; the ``population`` fitted
    to it, None where there is none."""

    theta: FloatArray
    weight: FloatArray
    population: Population | None


class Drawer:
    """Draws of every prompt's theta, one row of all prompts at a time.

    ``population`` is None with fewer than ``FEWEST_RESOLVED`` quotable estimates: those prompts are then drawn from
    their own likelihood and all others are NaN.
    """

    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence
        self._centre, self._scale = centre_and_scale(evidence)
        self._likelihood = np.exp(log_likelihood(evidence))
        known = evidence.resolved
        self._sharp = known & (self._scale < SHARPEST)
        sizes = np.bincount(evidence.group, minlength=evidence.groups)
        self.weight: FloatArray = 1.0 / sizes[evidence.group]
        """[m] 1 over the size of the prompt's group, so that a base prompt counts once."""
        self.population: Population | None = None
        if known.sum() >= FEWEST_RESOLVED:
            start = self._start(self._centre[known])
            some = slice(None, None, -(-len(known) // _REFITTED))
            self.population = fit_population(self._likelihood[some], self.weight[some], start, _FIRST_STEPS)

    def _start(self, theta: FloatArray) -> Population:
        sd = max(float(theta.std()), 1.0)
        if self._evidence.groups < _TWO_MODES_FROM:
            return Population(np.ones(1), np.array([theta.mean()]), np.array([sd]))
        low, high = np.quantile(theta, [0.3, 0.9])
        return Population(np.array([0.8, 0.2]), np.array([low, high]), np.array([sd, sd / 2]))

    def medians(self) -> FloatArray:
        """[m] posterior medians of theta under the fitted population; NaN without one."""
        if self.population is None:
            return np.where(self._evidence.resolved, self._centre, np.nan)
        found = self._inverse(self._cumulated(self.population), np.full(len(self._centre), 0.5))
        return np.where(self._sharp, self._centre, found)

    def draws(self, rng: np.random.Generator, times: int) -> Iterator[Draw]:
        """``times`` draws."""
        e, refit = self._evidence, len(self._centre) <= _REFITTED
        again = self.population
        cdf = None if again is None or refit else self._cumulated(again)
        for _ in range(times):
            counts = rng.multinomial(e.groups, np.full(e.groups, 1 / e.groups))
            weight = self.weight * counts[e.group]
            uniform = rng.random(len(self._centre))
            direct = self._centre + self._scale * rng.standard_t(np.maximum(e.df, 2.0))
            if self.population is None:
                yield Draw(direct, weight, None)
                continue
            if cdf is None or refit:
                again = fit_population(self._likelihood, weight, self.population, _NEXT_STEPS)
                cdf = self._cumulated(again)
            yield Draw(np.where(self._sharp, direct, self._inverse(cdf, uniform)), weight, again)

    def _cumulated(self, population: Population) -> FloatArray:
        """[m * S]: of row i, i plus the distribution function of its theta; it rises from the first to the last."""
        cdf = np.cumsum(self._likelihood * population.on_grid().sum(axis=0), axis=1)
        cdf /= np.maximum(cdf[:, -1:], 1e-300)
        cdf += np.arange(len(cdf))[:, None]
        return cdf.ravel()

    def _inverse(self, cdf: FloatArray, u: FloatArray) -> FloatArray:
        row = np.arange(len(u))
        found = np.clip(np.searchsorted(cdf, row + u), row * len(GRID), (row + 1) * len(GRID) - 1)
        cell = found - row * len(GRID)
        before = np.where(cell > 0, cdf[found - 1], row)
        inside = (row + u - before) / np.maximum(cdf[found] - before, 1e-12)
        return GRID[cell] + STEP * (np.clip(inside, 0, 1) - 0.5)
