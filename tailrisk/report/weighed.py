"""Batches with their weights, as the parts of a report take them in while the log is read."""

from __future__ import annotations

from typing import NamedTuple, Self

import numpy as np

from tailrisk.records import FloatArray, IntArray, PromptPlan, Verdict
from tailrisk.store import LoggedNumbers

_NONE: FloatArray = np.empty(0)


class Expected(NamedTuple):
    """A prompt's round. ``draws`` [K]: those expected of each component; ``scale``: what a weight of one adds to the
    round's part of the estimate."""

    plan: PromptPlan
    draws: FloatArray
    scale: float

    @classmethod
    def of(cls, plan: PromptPlan) -> Self:
        draws = plan.expected
        return cls(plan, draws, plan.mass / float(draws.sum()))


class Weighed:
    """A batch that an estimate rests on: ``log_w`` [n], natural-log weights; ``harm``: rows that the judge of all draws
    calls harm, ``harm_w`` their weights and ``harm_sum`` the sum of these."""

    __slots__ = ("harm", "harm_sum", "harm_w", "log_w", "plan", "result")

    def __init__(
        self, result: LoggedNumbers, plan: PromptPlan, log_w: FloatArray, harm: IntArray | None = None
    ) -> None:
        self.result, self.plan, self.log_w = result, plan, log_w
        self.harm = np.flatnonzero(result.verdicts == int(Verdict.HARM)) if harm is None else harm
        self.harm_w, self.harm_sum = _NONE, 0.0
        if len(self.harm):
            self.harm_w = np.exp(log_w[self.harm])
            self.harm_sum = float(self.harm_w.sum())
