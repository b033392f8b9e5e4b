"""Worlds of finitely many answers, in which laws are rows of probabilities and cross-entropies are exact sums."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tailrisk.stats.ledger import RoundDraws


class World(NamedTuple):
    """``laws`` [K, M] probabilities of M answers, the target first; ``harm`` [M]."""

    laws: np.ndarray
    harm: np.ndarray

    @property
    def q_star(self) -> np.ndarray:
        """[M] the target given harm."""
        row = self.laws[0] * self.harm
        return row / row.sum()

    def draw(self, counts, rng: np.random.Generator, mass: float = 0.0) -> RoundDraws:
        """A round of independent draws, ``counts`` [K] of each law."""
        counts = np.asarray(counts)
        answers = np.concatenate(
            [rng.choice(len(self.harm), n, p=row) for n, row in zip(counts, self.laws, strict=True)]
        )
        component = np.repeat(np.arange(len(counts)), counts)
        with np.errstate(divide="ignore"):
            log_q = np.log(self.laws[:, answers].T)
        return RoundDraws(
            counts=counts,
            mass=mass,
            component=component,
            log_q=log_q,
            log_q_sample=log_q[np.arange(len(component)), component],
            verdict=self.harm[answers].astype(np.int8),
        )

    def cross_entropy(self, shares) -> float:
        """Exact cross-entropy in nats of the mixture with these shares [K] from the law of harmful answers."""
        star = self.q_star
        mixture = np.asarray(shares) @ self.laws
        return float(-(star[star > 0] @ np.log(mixture[star > 0])))


def law(rng: np.random.Generator, bad: np.ndarray, good: int, harm: float) -> np.ndarray:
    """A law of harm ``harm``, its harmful answers in the proportions ``bad``."""
    safe = rng.dirichlet(np.full(good, 5.0))
    return np.concatenate([harm * bad / bad.sum(), (1 - harm) * safe])


def planted(rng: np.random.Generator, *, cells: int = 8, best: int = 3, harmful: int = 40, mu: float = 1e-4):
    """A world in which cell ``best`` gives harmful answers as the target does, only oftener; every other cell has
    proportions that are far off."""
    shape = rng.dirichlet(np.full(harmful, 1.0))
    rows = [law(rng, shape, 60, mu)]
    for k in range(1, cells + 1):
        tilt = shape if k == best else shape * np.exp(rng.normal(0, 1.5, harmful))
        rows.append(law(rng, tilt, 60, 0.5))
    return World(np.array(rows), np.arange(harmful + 60) < harmful)
