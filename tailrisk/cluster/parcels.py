"""What travels between the driver and the workers, packed small: one message in place of many little ones.

A message costs the driver about as much as the rest that it does with a batch. So draws come back as one string of
bytes, where Ray would send every answer's token ids apart; and batches go to a worker together, to be drawn or to be
judged, as long as it is quick with them: a slow one gets them one by one, so that all workers have some.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np

from tailrisk.audit.work import Draws
from tailrisk.records import Batch, JudgedTexts, cut

QUICK_S = 0.1
"""Batches go together as far as that takes a worker no longer than this."""
MOST = 16
"""Batches that go together at most."""


def pack_draws(draws: Draws) -> bytes:
    lengths = np.array([len(t) for t in draws.tokens], dtype=np.int64)
    flat = np.concatenate([np.empty(0, dtype=np.int32), *draws.tokens])
    return _packed((lengths, flat, *draws[2:]))


def unpack_draws(data: bytes, batch: Batch) -> Draws:
    """``batch`` is the one that was sent: it does not travel back."""
    lengths, flat, *rest = pickle.loads(data)
    return Draws(batch, cut(flat, lengths.tolist()), *rest)


def pack_all(packed: Sequence[bytes], seconds: float) -> bytes:
    """Several batches' ``pack_draws``, and the seconds that they took."""
    return _packed((list(packed), seconds))


def unpack_all(data: bytes, batches: Sequence[Batch]) -> tuple[list[Draws], float]:
    packed, seconds = pickle.loads(data)
    return [unpack_draws(d, b) for d, b in zip(packed, batches, strict=True)], seconds


def pack_judged(judged: Sequence[JudgedTexts], seconds: float) -> bytes:
    return _packed((seconds, [tuple(j) for j in judged]))


def unpack_judged(data: bytes) -> tuple[list[JudgedTexts], float]:
    seconds, rows = pickle.loads(data)
    return [JudgedTexts(*row) for row in rows], seconds


class Pace:
    """How many batches may go to a worker together: one before the first answer."""

    def __init__(self) -> None:
        self.together = 1

    def saw(self, batches: int, seconds: float) -> None:
        """``batches`` took a worker ``seconds``. At most twice as many go next time."""
        quick = int(QUICK_S * batches / max(seconds, 1e-9))
        self.together = max(1, min(MOST, 2 * self.together, quick))

    def failed(self) -> None:
        self.together = 1


def _packed(content: Any) -> bytes:
    return pickle.dumps(content, protocol=pickle.HIGHEST_PROTOCOL)
