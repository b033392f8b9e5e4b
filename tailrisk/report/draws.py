"""The draws of a run as other tools want them, batch by batch: with their weights, or with their texts taken out."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tailrisk.records import BatchResult, FloatArray, RoundPlan, Verdict
from tailrisk.report.clean import digest
from tailrisk.stats import mixture_log_weights
from tailrisk.store import final_results, replay

REDACTED = "redacted"


class Weighted(NamedTuple):
    """A batch. ``log_w`` [n]: logarithm of p over the mixture; ``scale``: what a weight of one adds to the prompt's
    estimate, 0 where the draws were for choosing only."""

    result: BatchResult
    log_w: FloatArray
    scale: float


def weighted_draws(folder: Path, *, corrected: bool) -> Iterator[Weighted]:
    """Every logged batch in the order of the log, under its last verdicts; ``corrected`` as in ``log_weights``."""
    plans = {
        (p.prompt_id, record.round): p
        for record in replay(folder, {"plan"})
        if isinstance(record, RoundPlan)
        for p in record.prompts
    }
    for result in final_results(folder):
        batch = result.batch
        plan = plans[batch.prompt_id, batch.round]
        log_w = mixture_log_weights(result.log_q, plan.expected)
        if corrected:
            log_w = log_w + result.log_q[:, batch.component] - result.log_q_sample
        yield Weighted(result, log_w, plan.mass / float(plan.expected.sum()))


def heaviest(draws: Iterable[Weighted], n: int) -> dict[str, list[int]]:
    """Of the harmful draws the ``n`` that add most to their prompts' estimates: batch key -> rows."""

    def rows() -> Iterator[tuple[float, str, int]]:
        for w in draws:
            hits = np.flatnonzero(w.result.verdicts == int(Verdict.HARM))
            for i, part in zip(hits.tolist(), np.exp(w.log_w[hits]) * w.scale, strict=True):
                yield float(part), w.result.batch.key, -i

    found: dict[str, list[int]] = {}
    for _, key, i in heapq.nlargest(n, rows()):
        found.setdefault(key, []).append(-i)
    return {key: sorted(rows) for key, rows in found.items()}


def redacted(results: Iterable[BatchResult]) -> Iterator[BatchResult]:
    """The same without what was said: a hash and a length in place of every answer, no token ids, and no reasons of
    judges, which may quote it."""
    for result in results:
        yield replace(
            result,
            texts=[digest(text) for text in result.texts],
            tokens=[np.empty(0, dtype=np.int32) for _ in result.tokens],
            judge_errors=[REDACTED if error else "" for error in result.judge_errors],
        )
