"""Which few components to go on with: the mixture nearest to the law of harmful answers, kept small by hits
that did not choose it.

Components are added one at a time, each time the one whose mixture with those before it, at the best shares, has
the smallest cross-entropy from the hits. Shares are the fixed point of expectation-maximisation; the
target's is held at a floor, which keeps weights bounded (Owen & Zhou 2000) and cross-entropies finite. On the
hits that choose, every further component lowers the cross-entropy; so the number of components is the one at
which the cross-entropy of *held-out* hits stops falling, over folds: whole prompts where there are enough of
them, else answers of the same prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tailrisk.records import FloatArray, IntArray
from tailrisk.stats.searchhits import Pool

STEPS = 50
"""Of expectation-maximisation; shares that are still moving then move by little."""
FOLDS = 5
LEAST_GAIN = 0.01
"""Nats that a further component must take off the held-out cross-entropy."""
_ENOUGH_UNITS = 5
"""Prompts with hits from which on whole prompts are held out."""


class Selection(NamedTuple):
    """``components``: the chosen ones in the order of choice, without the target. ``shares`` [1 + S]: theirs
    in the best mixture, the target's first. ``gain``: nats by which that mixture is nearer to the hits than
    the target alone. ``held_out``: the same for held-out hits, after 0, 1, ... components; empty where too
    few hits are there to hold some out.
    """

    components: tuple[int, ...]
    shares: FloatArray
    gain: float
    held_out: tuple[float, ...]


def select(
    pool: Pool, candidates: Sequence[int], *, keep: int, target_share: float, held_out: bool = True
) -> Selection:
    """At most ``keep`` of the ``candidates`` (columns of the pool), at least one of them.

    Without ``held_out``, or with less than two answers, all that lower the cross-entropy of the hits
    themselves are kept. Ties go to the candidate that comes first.
    """
    density, rows = _densities(pool), np.asarray(candidates, dtype=np.int64)
    fold = _folds(pool)
    outside: tuple[float, ...] = ()
    if held_out and fold.max(initial=0) > 0:
        outside = _held_out(density, pool, fold, rows, keep, target_share)
        keep = _last_that_helps(outside)
    path = _greedy(density, pool.weight, rows, (), keep, target_share)
    return _selection(density, pool, path, target_share, outside)


def with_one_of(
    pool: Pool, chosen: Selection, candidates: Sequence[int], *, keep: int, target_share: float
) -> Selection:
    """``chosen`` with one of the ``candidates`` beside it, in the place of the last one where there are ``keep``
    already: the one that is nearest to the hits with the target alone, because it is to find them by itself."""
    density, rows = _densities(pool), np.asarray(candidates, dtype=np.int64)
    before = chosen.components[: keep - 1]
    added = int(rows[int(np.argmax(_added(density, pool.weight, rows, (), target_share)))])
    return _selection(density, pool, (*before, added), target_share, chosen.held_out)


def mixture_shares(pool: Pool, components: Sequence[int], target_share: float) -> FloatArray:
    """[1 + S] best shares of the target and of ``components``, the target's at least ``target_share``."""
    columns = np.array([0, *components], dtype=np.int64)
    return _fit(_densities(pool), pool.weight, columns[None, :], target_share)[0]


def _densities(pool: Pool) -> FloatArray:
    """[h, K] densities, each row up to a factor of its own that keeps the largest at one."""
    return np.exp(pool.log_q - pool.log_q.max(axis=1, keepdims=True))


def _selection(
    density: FloatArray, pool: Pool, path: tuple[int, ...], target_share: float, outside: tuple[float, ...]
) -> Selection:
    columns = np.array([[0, *path]], dtype=np.int64)
    shares = _fit(density, pool.weight, columns, target_share)
    gain = float(_gains(density, pool.weight, columns, shares)[0])
    return Selection(path, shares[0], gain, outside)


def _fit(density: FloatArray, weight: FloatArray, columns: IntArray, target_share: float) -> FloatArray:
    """[C, S] shares of C mixtures of the columns [C, S], the first of each row being the target.

    An exact step of expectation-maximisation under the floor: where the target's part falls below it, it is
    put on the floor and the others share the rest as their parts are.
    """
    size = columns.shape[1]
    if size == 1:
        return np.ones((len(columns), 1))
    parts = density.T[columns]  # [C, S, h]
    shares = np.full(columns.shape, (1.0 - target_share) / (size - 1))
    shares[:, 0] = target_share
    total = weight.sum()
    for _ in range(STEPS):
        mixture = (shares[:, None, :] @ parts)[:, 0]
        shares = shares * (parts @ (weight / np.maximum(mixture, 1e-300))[:, :, None])[:, :, 0] / total
        left = shares[:, 1:].sum(axis=1)
        shares[:, 0] = np.clip(shares[:, 0], target_share, 1.0)
        # Shares that have all but vanished are left where they are: rounding would blow them up.
        shares[:, 1:] *= ((1.0 - shares[:, 0]) / np.maximum(left, 1e-12))[:, None]
    return shares


def _gains(density: FloatArray, weight: FloatArray, columns: IntArray, shares: FloatArray) -> FloatArray:
    """[C] sum of weight * log(mixture / target)."""
    mixture = np.einsum("cs,csh->ch", shares, density.T[columns])
    # The target can produce every hit, yet a density relative to the row's largest may underflow.
    return (np.log(np.maximum(mixture, 1e-300)) - np.log(np.maximum(density[:, 0], 1e-300))) @ weight


def _added(
    density: FloatArray, weight: FloatArray, rows: IntArray, before: tuple[int, ...], target_share: float
) -> FloatArray:
    """[C] gains of the mixtures of the target, ``before`` and one of ``rows``; -inf for those in ``before``."""
    columns = np.column_stack([np.tile([0, *before], (len(rows), 1)), rows])
    gains = _gains(density, weight, columns, _fit(density, weight, columns, target_share))
    return np.where(np.isin(rows, before), -np.inf, gains)


def _greedy(
    density: FloatArray,
    weight: FloatArray,
    rows: IntArray,
    path: tuple[int, ...],
    keep: int,
    target_share: float,
) -> tuple[int, ...]:
    """The first component always, further ones while they lower the cross-entropy at all."""
    reached = -np.inf
    while len(path) < min(keep, len(rows)):
        gains = _added(density, weight, rows, path, target_share)
        best = int(np.argmax(gains))
        if path and gains[best] <= reached + 1e-9:
            break
        path, reached = (*path, int(rows[best])), float(gains[best])
    return path


def _folds(pool: Pool) -> IntArray:
    """[h] the fold of each answer: by whole prompts where there are enough, else answers in turn."""
    units = int(pool.unit.max()) + 1
    if units >= _ENOUGH_UNITS:
        return (pool.unit % FOLDS).astype(np.int64)
    return (np.arange(len(pool.weight)) % min(FOLDS, len(pool.weight))).astype(np.int64)


def _held_out(
    density: FloatArray, pool: Pool, fold: IntArray, rows: IntArray, keep: int, target_share: float
) -> tuple[float, ...]:
    """Gains on held-out hits after 0, 1, ..., ``keep`` components, summed over the folds."""
    total = np.zeros(min(keep, len(rows)) + 1)
    for number in range(int(fold.max()) + 1):
        out = fold == number
        if not pool.weight[~out].sum() > 0:
            continue
        weight = pool.weight[~out] / pool.weight[~out].sum()
        path = _greedy(density[~out], weight, rows, (), keep, target_share)
        for size in range(1, len(total)):
            columns = np.array([[0, *path[:size]]], dtype=np.int64)
            shares = _fit(density[~out], weight, columns, target_share)
            total[size] += float(_gains(density[out], pool.weight[out], columns, shares)[0])
    return tuple(float(g) for g in total)


def _last_that_helps(held_out: Sequence[float]) -> int:
    """Components after which the held-out cross-entropy stops falling; one at least."""
    size = 1
    while size + 1 < len(held_out) and held_out[size + 1] > held_out[size] + LEAST_GAIN:
        size += 1
    return size
