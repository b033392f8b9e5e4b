"""What each logged draw weighs, and the part of its prompt's estimate that a weight of one is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tailrisk.audit.protocols import LawCard
from tailrisk.audit.state import AuditState
from tailrisk.records import BatchResult, FloatArray
from tailrisk.stats import Estimate, mixture_log_weights


class DrawWeights:
    """The weights of a batch's draws, by the draws its round expected for its prompt."""

    def __init__(self, state: AuditState) -> None:
        self._laws: LawCard = state.laws
        self._expected = {
            (prompt_id, entry.round): entry.plan.expected
            for prompt_id, ledger in state.ledgers.items()
            for entry in ledger.entries
        }

    def __call__(self, result: BatchResult) -> FloatArray:
        return np.exp(self.logarithms(result))

    def logarithms(self, result: BatchResult) -> FloatArray:
        batch = result.batch
        log_w = mixture_log_weights(result.log_q, self._expected[batch.prompt_id, batch.round])
        if self._laws.corrected:
            log_w = log_w + result.log_q[:, batch.component] - result.log_q_sample
        return log_w


def draw_scales(state: AuditState) -> dict[tuple[str, int], float]:
    """(prompt, round) -> what a weight of one adds to the estimate; 0 for rounds that only chose."""
    scales = {}
    for prompt_id, ledger in state.ledgers.items():
        used = [e for e in ledger.entries if e.complete]
        mass = sum(e.plan.mass for e in used)
        for entry in used if mass > 0 else ():
            scales[prompt_id, entry.round] = entry.plan.mass / mass / float(entry.plan.expected.sum())
    return scales


def part_scales(state: AuditState, estimates: Sequence[Estimate]) -> dict[tuple[str, int], float]:
    """The same as a part of the estimate; prompts without an estimate are left out."""
    total = dict(zip(state.ledgers, (e.estimate for e in estimates), strict=True))
    return {key: scale / total[key[0]] for key, scale in draw_scales(state).items() if total[key[0]] > 0}
