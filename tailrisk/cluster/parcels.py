"""What travels between the driver and the workers, packed small: one message in place of many little ones.

A message costs the driver about as much as the rest that it does with a batch. So draws come back as one string of
bytes, where Ray would send every answer's token ids apart; and answers that were drawn at about the same time go to
a judge together, as long as judging is quick: a slow judge gets them one by one, so that all its workers have some.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np

from tailrisk.audit.work import Draws
from tailrisk.records import Batch, JudgedTexts, cut

QUICK_S = 0.05
"""Batches are judged together as far as that takes no longer than this."""
MOST = 16
"""Batches that are judged together at most."""


def pack_draws(draws: Draws) -> bytes:
    lengths = np.array([len(t) for t in draws.tokens], dtype=np.int64)
    flat = np.concatenate([np.empty(0, dtype=np.int32), *draws.tokens])
    return _packed((lengths, flat, *draws[2:]))


def unpack_draws(data: bytes, batch: Batch) -> Draws:
    """``batch`` is the one that was sent: it does not travel back."""
    lengths, flat, *rest = pickle.loads(data)
    return Draws(batch, cut(flat, lengths.tolist()), *rest)


def pack_judged(judged: Sequence[JudgedTexts], seconds: float) -> bytes:
    return _packed((seconds, [tuple(j) for j in judged]))


def unpack_judged(data: bytes) -> tuple[list[JudgedTexts], float]:
    seconds, rows = pickle.loads(data)
    return [JudgedTexts(*row) for row in rows], seconds


class Pace:
    """How many batches may be judged together: one before the first answer."""

    def __init__(self) -> None:
        self.together = 1

    def saw(self, batches: int, seconds: float) -> None:
        """It took a worker ``seconds`` to judge ``batches``. At most twice as many go next time."""
        quick = int(QUICK_S * batches / max(seconds, 1e-9))
        self.together = max(1, min(MOST, 2 * self.together, quick))

    def failed(self) -> None:
        self.together = 1


def _packed(content: Any) -> bytes:
    return pickle.dumps(content, protocol=pickle.HIGHEST_PROTOCOL)
