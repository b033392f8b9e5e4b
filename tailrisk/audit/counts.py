"""Whole numbers: draws of a prompt over its components, draws of a component over batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike


class Split(NamedTuple):
    """``counts`` of K components; ``faded`` as in ``PromptPlan``."""

    counts: tuple[int, ...]
    faded: tuple[float, ...] | None


def split_draws(n: int, shares: ArrayLike, target_share: float, seed: int) -> Split:
    """n draws over K components by ``shares`` [K] (sum 1), component 0 being the target.

    The target gets at least ``target_share * n`` rounded up. Proposals whose share is worth two draws get them, the
    largest first, for a single draw has no variance of its own. The others, the faded ones, together get what their
    shares are worth and one draw at least; each of these goes to one of them by lot, in proportion to their shares.
    So small rounds are not eaten up by what has faded, and yet it stays in the mixture that weights go by. Left out,
    a hit that only it finds would weigh 1 / ``target_share`` where the target meets it, and be a thousand times the
    truth of a rare event.

    ``seed``: of the lot. Raises ValueError below 2 draws.
    """
    shares = np.asarray(shares, dtype=np.float64)
    if n < 2:
        raise ValueError(f"{n} draws cannot be split over {len(shares)} components")
    target = min(n, max(2, int(np.ceil(round(target_share * n, 9)))))
    room = (n - target) // 2
    order = [int(k) for k in np.argsort(-shares[1:], kind="stable") + 1 if shares[k] > 0] if room else []
    own = [k for k in order if shares[k] * n >= 2.0 - 1e-9]
    own = own if len(own) == len(order) <= room else own[: room - 1]
    rest = order[len(own) :]
    if len(rest) == 1:
        own, rest = order, []
    counts = np.zeros(len(shares) + 1, dtype=np.int64)
    counts[0], counts[own], counts[-1] = target, 2, 1 if rest else 0
    free = n - int(counts.sum())
    if free > 0:
        taking = np.zeros(len(counts))
        taking[[0, *own]], taking[-1] = shares[[0, *own]], shares[rest].sum()
        if taking.sum() == 0.0:
            taking[0] = 1.0
        counts += _fill(free, np.maximum(taking / taking.sum() * n - counts, 0.0))
    if not rest:
        return Split(tuple(map(int, counts[:-1])), None)
    chance = shares[rest] / shares[rest].sum()
    faded = np.zeros(len(shares))
    faded[rest] = counts[-1] * chance
    drawn = np.random.default_rng(seed).multinomial(counts[-1], chance)
    counts[rest] = drawn
    return Split(tuple(map(int, counts[:-1])), tuple(map(float, faded)))


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
