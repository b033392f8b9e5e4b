"""Some of the draws, read from the log: their texts, which the driver does not keep, and what second readers said."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tailrisk.records import Batch, FloatArray, RoundPlan
from tailrisk.store.asked import Asked, Reader, Told
from tailrisk.store.checkedlog import CheckedLog
from tailrisk.store.codec import decode
from tailrisk.store.numbers import key_of, texts_in


def texts_of(source: Path | CheckedLog, wanted: Mapping[str, Sequence[int]]) -> dict[str, list[str]]:
    """Batch key -> the texts of these of its draws, in their order. Other batches are checked, but not parsed."""
    found: dict[str, list[str]] = {}
    for body in CheckedLog.of(source).bodies("batch"):
        key = key_of(body)
        if key in wanted and key not in found:
            texts = texts_in(body)
            found[key] = [texts[i] for i in wanted[key]]
    return found


class BatchReading(NamedTuple):
    """What a second reader was asked of a batch: ``draws`` [m] in increasing order, ``inclusion`` [m], ``verdicts`` [m]
    (``UNDETERMINED`` where nothing was said) and ``scores`` [m]."""

    draws: NDArray[np.int64]
    inclusion: FloatArray
    verdicts: NDArray[np.int8]
    scores: FloatArray

    def spread(self, n: int) -> tuple[NDArray[np.bool_], NDArray[np.int8], FloatArray, FloatArray]:
        """[n] each, for all draws of the batch: asked, verdict, score, inclusion."""
        asked, verdicts = np.zeros(n, dtype=np.bool_), np.zeros(n, dtype=np.int8)
        scores, inclusion = np.full(n, np.nan), np.full(n, np.nan)
        asked[self.draws], verdicts[self.draws] = True, self.verdicts
        scores[self.draws], inclusion[self.draws] = self.scores, self.inclusion
        return asked, verdicts, scores, inclusion


def second_readings(source: Path | CheckedLog, reader: Reader = "strong") -> dict[str, BatchReading]:
    """Batch key -> what ``reader`` was asked about it and has said, from the log alone; empty without one."""
    batches: dict[tuple[str, int], list[Batch]] = {}
    asked: dict[tuple[str, int], tuple[tuple[int, ...], tuple[float, ...]]] = {}
    said: dict[tuple[str, int], dict[int, tuple[int, float]]] = {}
    log = CheckedLog.of(source)
    if not log.count("asked"):
        return {}
    for kind, payload in log.records({"plan", "asked", "told"}):
        record = decode(kind, payload)
        if isinstance(record, RoundPlan):
            for batch in record.batches:
                batches.setdefault((batch.prompt_id, batch.round), []).append(batch)
        elif isinstance(record, Asked) and record.reader == reader:
            asked.update({(s.prompt_id, record.round): (s.rows, s.inclusion) for s in record.samples})
        elif isinstance(record, Told) and record.reader == reader:
            verdicts, scores = record.judged.verdicts.tolist(), record.judged.scores.tolist()
            said.setdefault((record.prompt_id, record.round), {}).update(
                zip(record.rows, zip(verdicts, scores, strict=True), strict=True)
            )
    found = {}
    for key, (rows, inclusion) in asked.items():
        told = said.get(key, {})
        ordered = sorted(batches[key], key=lambda b: (b.component, b.index))
        starts = np.cumsum([0, *(b.size for b in ordered)])
        place = np.searchsorted(starts, np.asarray(rows, dtype=np.int64), side="right") - 1
        verdicts = np.array([told.get(r, (2, 0.0))[0] for r in rows], dtype=np.int8)
        scores = np.array([told.get(r, (2, math.nan))[1] for r in rows], dtype=np.float64)
        for b in np.unique(place):
            own = np.flatnonzero(place == b)
            found[ordered[b].key] = BatchReading(
                np.asarray(rows, dtype=np.int64)[own] - starts[b],
                np.asarray(inclusion)[own],
                verdicts[own],
                scores[own],
            )
    return found
