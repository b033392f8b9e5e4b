"""What an allocator knows of each prompt, and the sharing out that allocators have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from tailrisk.records import FloatArray, IntArray


class PromptNeeds(NamedTuple):
    """For C prompts: ``rel_var`` [C], variance per draw over the squared estimate (NaN before the first
    hit); ``cost`` [C] > 0, mean tokens a draw; ``wanted`` [C], most draws to give; ``drawn`` [C], draws made.
    """

    rel_var: FloatArray
    cost: FloatArray
    wanted: IntArray
    drawn: IntArray


Allocator = Callable[[PromptNeeds, int], IntArray]


def known_rel_var(needs: PromptNeeds) -> FloatArray:
    """[C] relative variances with the unknown ones filled in.

    A prompt without a hit after n draws has a relative variance of the order of n or more; it is taken
    to be no better than the worst of the others.
    """
    rel_var = np.asarray(needs.rel_var, dtype=np.float64)
    known = np.isfinite(rel_var)
    worst = float(rel_var[known].max()) if known.any() else 1.0
    return np.where(known, rel_var, np.maximum(worst, np.asarray(needs.drawn, dtype=np.float64)))


def fill(scores: FloatArray, start: FloatArray, caps: IntArray, draws: int) -> IntArray:
    """[C] whole numbers n_c <= caps_c, sum min(draws, sum caps), such that start + n is as nearly
    proportional to ``scores`` as that allows: what is not wanted by one prompt goes to the others.

    Prompts of score zero get draws only after all others have what they want. Ties go to the first.
    """
    caps = np.maximum(np.asarray(caps, dtype=np.int64), 0)
    draws = int(min(max(draws, 0), int(caps.sum())))
    scores = np.maximum(np.asarray(scores, dtype=np.float64), 0.0)
    limit = np.where(scores > 0, caps, 0)
    if limit.sum() <= draws:
        rest = (
            fill(np.ones(len(caps)), np.zeros(len(caps)), caps - limit, draws - int(limit.sum()))
            if (limit.sum() < draws)
            else np.zeros(len(caps), dtype=np.int64)
        )
        return limit + rest
    level = _level(scores, np.asarray(start, dtype=np.float64), limit, draws)
    exact = np.clip(level * scores - start, 0, limit)
    whole = np.floor(exact).astype(np.int64)
    missing = draws - int(whole.sum())
    # Largest remainders first; floating point may leave the sum off by a few either way.
    while missing > 0:
        open_ = np.flatnonzero(whole < limit)
        order = open_[np.lexsort((open_, -(exact - whole)[open_]))][:missing]
        whole[order] += 1
        missing = draws - int(whole.sum())
    while missing < 0:
        order = np.flatnonzero(whole > 0)[:-missing]
        whole[order] -= 1
        missing = draws - int(whole.sum())
    return whole


def _level(scores: FloatArray, start: FloatArray, limit: IntArray, draws: int) -> float:
    """The water level: sum of clip(level * scores - start, 0, limit) is ``draws``; by its breakpoints."""
    used = scores > 0
    s, a, c = scores[used], start[used], limit[used].astype(np.float64)
    points = np.concatenate([a / s, (a + c) / s])
    slopes = np.concatenate([s, -s])
    order = np.argsort(points, kind="stable")
    points, slopes = points[order], np.cumsum(slopes[order])
    volume = np.concatenate([[0.0], np.cumsum(slopes[:-1] * np.diff(points))])
    i = int(np.clip(np.searchsorted(volume, draws, side="right") - 1, 0, len(points) - 1))
    return float(points[i] + (draws - volume[i]) / slopes[i]) if slopes[i] > 0 else float(points[i])
