"""The heaviest harmful answers of each prompt: what each adds to the estimate, and where it was drawn.

A number an answer is kept while a log is read; texts are read of the heaviest alone.
"""

from __future__ import annotations

import hashlib
import heapq
import math
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tailrisk.records import FloatArray
from tailrisk.store import CheckedLog, LoggedNumbers, texts_of

HITS_PER_PROMPT = 5


class Hit(NamedTuple):
    """A harmful answer: where it was drawn first, and how many ``times`` in all. ``contribution`` is what all
    its draws add to the prompt's estimate, ``share`` the part of it; ``weight`` is that of the first draw, ``seed``
    that of its batch, ``score`` and ``reason`` what the judge said of it (NaN and '' where it gave none)."""

    contribution: float
    weight: float
    share: float
    times: int
    log_p: float
    component: str
    batch: str
    draw: int
    seed: int
    score: float
    reason: str
    text: str = ""


class Answers:
    """A prompt's harmful answers as its batches come in, one entry an answer however often it was drawn. ``parts``:
    what each hit adds to the estimate."""

    def __init__(self) -> None:
        self.parts: array[float] = array("d")
        self._found: dict[bytes, _Answer] = {}

    def add(
        self,
        result: LoggedNumbers,
        scale: float,
        log_w: FloatArray,
        where: np.ndarray,
        names: Sequence[str],
        inclusion: FloatArray | None,
    ) -> None:
        """Takes in a batch's harmful draws, ``where`` [h] with the weights ``log_w`` [h]. ``scale``: what a weight of
        one adds to the estimate; ``inclusion`` [h]: the probabilities with which a strong judge read them."""
        rows, answers = where.tolist(), result.answers()
        every = [1.0] * len(rows) if inclusion is None else inclusion.tolist()
        for i, log_weight, pi in zip(rows, log_w.tolist(), every, strict=True):
            weight = math.exp(log_weight) / pi
            part = scale * weight
            self.parts.append(part)
            answer = hashlib.blake2b(answers[i], digest_size=16).digest()
            before = self._found.get(answer)
            if before is None:
                self._found[answer] = _Answer(part, weight, result, i, names[result.batch.component])
            else:
                before.contribution += part
                before.times += 1

    def heaviest(self) -> list[Hit]:
        """Those that add most, without their texts."""
        total = math.fsum(a.contribution for a in self._found.values())
        if not total > 0:
            return []
        top = heapq.nlargest(
            HITS_PER_PROMPT, self._found.values(), key=lambda a: (a.contribution, a.batch, a.draw)
        )
        return [a.hit(total) for a in top]


class _Answer:
    """An answer while the log is read."""

    __slots__ = (
        "batch", "component", "contribution", "draw", "log_p", "reason", "score", "seed", "times", "weight",
    )  # fmt: skip

    def __init__(self, part: float, weight: float, first: LoggedNumbers, draw: int, component: str) -> None:
        self.contribution, self.weight, self.times = part, weight, 1
        self.batch, self.draw, self.seed, self.component = first.batch.key, draw, first.batch.seed, component
        self.log_p, self.score = float(first.log_q[draw, 0]), float(first.scores[draw])
        self.reason = first.judge_errors[draw]

    def hit(self, total: float) -> Hit:
        return Hit(
            contribution=self.contribution,
            weight=self.weight,
            share=self.contribution / total,
            times=self.times,
            log_p=self.log_p,
            component=self.component,
            batch=self.batch,
            draw=self.draw,
            seed=self.seed,
            score=self.score,
            reason=self.reason,
        )


def with_texts(source: Path | CheckedLog, hits: dict[str, list[Hit]]) -> dict[str, list[Hit]]:
    """The same with the texts that the log has."""
    wanted: dict[str, list[int]] = {}
    for hit in (h for listed in hits.values() for h in listed):
        wanted.setdefault(hit.batch, []).append(hit.draw)
    texts = texts_of(source, wanted) if wanted else {}
    found = {(key, i): text for key, rows in wanted.items() for i, text in zip(rows, texts[key], strict=True)}
    return {p: [h._replace(text=found[h.batch, h.draw]) for h in listed] for p, listed in hits.items()}
