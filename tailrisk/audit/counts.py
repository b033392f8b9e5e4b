"""Whole numbers: draws of a prompt over its components, draws of a component over batches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike


def split_draws(n: int, shares: ArrayLike, target_share: float) -> tuple[int, ...]:
    """n draws over K components by ``shares`` [K] (sum 1), component 0 being the target.

    The target gets at least ``target_share * n`` rounded up. Every other component has 0 draws or at least 2
    (a single draw has no variance of its own), and has 2 wherever its share is worth one draw and there is room;
    the largest shares come first, and the largest of all needs to be worth none. So components that have faded are
    left out of small rounds, which they would otherwise eat up. Raises ValueError below 2 draws.
    """
    shares = np.asarray(shares, dtype=np.float64)
    if n < 2:
        raise ValueError(f"{n} draws cannot be split over {len(shares)} components")
    target = min(n, max(2, int(np.ceil(round(target_share * n, 9)))))
    order = [k for k in np.argsort(-shares[1:], kind="stable") + 1 if shares[k] > 0]
    worth = [k for k in order if shares[k] * n >= 1.0 - 1e-9]
    wanted = (worth or order[:1])[: (n - target) // 2]
    counts = np.zeros(len(shares), dtype=np.int64)
    counts[0] = target
    counts[wanted] = 2
    free = n - int(counts.sum())
    if free > 0:
        taking = np.zeros(len(shares))
        taking[[0, *wanted]] = shares[[0, *wanted]]
        if taking.sum() == 0.0:
            taking[0] = 1.0
        counts += _fill(free, np.maximum(taking / taking.sum() * n - counts, 0.0))
    return tuple(int(c) for c in counts)


def _fill(n: int, lacking: np.ndarray) -> np.ndarray:
    """n whole units in proportion to ``lacking``, by largest remainder (ties: the lower index)."""
    if lacking.sum() == 0.0:
        lacking = np.eye(1, len(lacking))[0]
    exact = lacking / lacking.sum() * n
    units = np.floor(exact).astype(np.int64)
    order = np.argsort(-(exact - units), kind="stable")
    units[order[: n - int(units.sum())]] += 1
    return units


def batch_sizes(n: int, most: int) -> Sequence[int]:
    """n draws as the fewest batches of at most ``most`` draws, as even as can be, larger ones first."""
    if n == 0:
        return ()
    batches = -(-n // most)
    small, larger = divmod(n, batches)
    return (small + 1,) * larger + (small,) * (batches - larger)
