"""The draws of a few prompts, whole, for statistics that need more than sums: intervals at another level."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tailrisk.records import FloatArray, PromptPlan
from tailrisk.report.weighed import Weighed
from tailrisk.stats import RoundDraws
from tailrisk.stats.ledger import is_complete

MOST = 10_000_000
"""Log-probabilities that are kept in all; a prompt that would go beyond is left out."""


class _Numbers(NamedTuple):
    """Of a batch, what a ``RoundDraws`` is made of."""

    component: int
    log_q: FloatArray
    log_q_sample: FloatArray
    verdicts: NDArray[np.int8]


class WholeDraws:
    """Takes in batches as the log is replayed, those of ``prompts`` alone."""

    def __init__(self, prompts: Collection[str], most: int = MOST) -> None:
        self._wanted = set(prompts)
        self._left = most
        self._kept: dict[str, dict[int, tuple[PromptPlan, list[_Numbers]]]] = {}

    def add(self, weighed: Weighed) -> None:
        result, plan = weighed.result, weighed.plan
        prompt = result.batch.prompt_id
        if prompt not in self._wanted:
            return
        self._left -= result.log_q.size
        if self._left < 0:
            self._wanted.discard(prompt)
            self._kept.pop(prompt, None)
            return
        _, batches = self._kept.setdefault(prompt, {}).setdefault(result.batch.round, (plan, []))
        batches.append(_Numbers(result.batch.component, result.log_q, result.log_q_sample, result.verdicts))

    def rounds(self) -> dict[str, list[RoundDraws]]:
        """The complete rounds of the prompts that were kept, in order."""
        return {
            prompt: [r for _, kept in sorted(by_round.items()) if is_complete(r := _round(*kept))]
            for prompt, by_round in self._kept.items()
        }


def _round(plan: PromptPlan, batches: Sequence[_Numbers]) -> RoundDraws:
    sizes = [len(b.log_q) for b in batches]
    return RoundDraws(
        counts=np.asarray(plan.counts, dtype=np.int64),
        mass=plan.mass,
        component=np.repeat([b.component for b in batches], sizes),
        log_q=np.concatenate([b.log_q for b in batches]),
        log_q_sample=np.concatenate([b.log_q_sample for b in batches]),
        verdict=np.concatenate([b.verdicts for b in batches]),
        faded=None if plan.faded is None else np.asarray(plan.faded),
    )
