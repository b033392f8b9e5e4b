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
            self.population = fit_population(self._likelihood, self.weight, start, _FIRST_STEPS)

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
        found = self._inverse(self.population, np.full(len(self._centre), 0.5))
        return np.where(self._sharp, self._centre, found)

    def draws(self, rng: np.random.Generator, times: int) -> Iterator[tuple[FloatArray, FloatArray]]:
        """``times`` pairs (theta [m], weight [m]): the weights are those of one resample of the base prompts."""
        e = self._evidence
        for _ in range(times):
            counts = rng.multinomial(e.groups, np.full(e.groups, 1 / e.groups))
            weight = self.weight * counts[e.group]
            uniform = rng.random(len(self._centre))
            direct = self._centre + self._scale * rng.standard_t(np.maximum(e.df, 2.0))
            if self.population is None:
                yield direct, weight
                continue
            steps = _NEXT_STEPS if len(self._centre) <= _REFITTED else 0
            again = fit_population(self._likelihood, weight, self.population, steps)
            theta = self._inverse(again, uniform)
            yield np.where(self._sharp, direct, theta), weight

    def _inverse(self, population: Population, u: FloatArray) -> FloatArray:
        cdf = np.cumsum(self._likelihood * population.on_grid().sum(axis=0), axis=1)
        level = u * cdf[:, -1]
        cell = np.minimum((cdf < level[:, None]).sum(axis=1), len(GRID) - 1)
        row = np.arange(len(u))
        before = np.where(cell > 0, cdf[row, cell - 1], 0.0)
        inside = (level - before) / np.maximum(cdf[row, cell] - before, 1e-300)
        return GRID[cell] + STEP * (np.clip(inside, 0, 1) - 0.5)
