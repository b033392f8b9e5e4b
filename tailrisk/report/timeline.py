"""The time line of the workers: when they were busy, and how many draws a second came of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from tailrisk.records import FloatArray
from tailrisk.report.eventlog import EventLog, Sitting

MOST_WORKERS = 24
STEPS = 240


class Lane(NamedTuple):
    """A worker. ``busy`` [STEPS]: the part of each step in which it worked; ``share``: of the whole time."""

    name: str
    batches: int
    draws: int
    seconds: float
    share: float
    busy: FloatArray


@dataclass(frozen=True)
class Timeline:
    """``edges`` [STEPS + 1] in seconds; ``rate`` [STEPS]: draws a second, each batch's spread evenly over its time.
    ``left_out``: workers without a lane of their own; the rate counts theirs too."""

    edges: FloatArray
    lanes: tuple[Lane, ...]
    rate: FloatArray
    sittings: tuple[Sitting, ...]
    left_out: int


def timeline(log: EventLog) -> Timeline | None:
    """None where the log has no batches."""
    if not len(log.end):
        return None
    worker, begin, end = np.asarray(log.worker), np.asarray(log.begin), np.asarray(log.end)
    draws = np.asarray(log.draws, dtype=np.float64)
    edges = np.linspace(min(0.0, float(begin.min())), max(log.seconds, float(end.max()), 1e-3), STEPS + 1)
    span, step = float(edges[-1] - edges[0]), float(edges[1] - edges[0])
    order = np.argsort(-np.bincount(worker, weights=end - begin, minlength=len(log.workers)), kind="stable")
    lanes = []
    for number in order[:MOST_WORKERS].tolist():
        own = worker == number
        busy = np.minimum(_spread(begin[own], end[own], np.ones(int(own.sum())), edges) / step, 1.0)
        seconds = float((end - begin)[own].sum())
        lanes.append(Lane(log.workers[number], int(own.sum()), int(draws[own].sum()), seconds,
                          float(busy.mean()) if span else 0.0, busy))  # fmt: skip
    lasted = np.maximum(end - begin, 1e-3)
    rate = _spread(end - lasted, end, draws / lasted, edges) / step
    return Timeline(edges, tuple(lanes), rate, tuple(log.sittings), max(len(log.workers) - MOST_WORKERS, 0))


def _spread(begin: FloatArray, end: FloatArray, height: FloatArray, edges: FloatArray) -> FloatArray:
    """[STEPS] integrals over the steps of a sum of blocks, each of a ``height`` from ``begin`` to ``end``."""
    times = np.concatenate([begin, end])
    order = np.argsort(times, kind="stable")
    times, slopes = times[order], np.concatenate([height, -height])[order]
    level = np.cumsum(slopes)
    area = np.concatenate([[0.0], np.cumsum(level[:-1] * np.diff(times))])
    at = np.interp(edges, times, area)
    return np.maximum(np.diff(at), 0.0)
