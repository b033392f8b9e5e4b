"""How far the estimates hang on the judge's edges: another threshold, the undetermined taken as harm.

Computed from what the log has of every draw, its weight, score and verdict; nothing is judged again. Another threshold
makes harm of the scores from it on; answers without a score keep their verdict. A prompt's estimate under a change is
the same combination of its rounds as its own: sum_r a_r / n_r sum_i w_i h_i / sum_r a_r over complete rounds.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from tailrisk.records import FloatArray, PromptPlan, Verdict
from tailrisk.report.weighed import Weighed

STEPS = (-0.2, -0.1, 0.1, 0.2)
"""Changes of the threshold, in parts of the range in which scores were seen."""


class Change(NamedTuple):
    """A column: what is changed, and each prompt's estimate then."""

    label: str
    values: Mapping[str, float]

    @property
    def mean(self) -> float:
        return sum(self.values.values()) / len(self.values)

    @property
    def largest(self) -> float:
        return max(self.values.values())


@dataclass(frozen=True)
class Sensitivity:
    """``changes``, what was judged first; ``note``: why the threshold was not changed, '' where it was."""

    changes: tuple[Change, ...]
    note: str


class Tally:
    """Takes in batches as the log is replayed; ``threshold``: the judge's, None where it has none."""

    def __init__(self, threshold: float | None) -> None:
        self._threshold = threshold
        self._rounds: dict[tuple[str, int], int] = {}
        self._plans: list[PromptPlan] = []
        self._harm: list[float] = []
        self._unsure: list[float] = []
        self._seen: list[int] = []
        self._scores, self._weights, self._verdicts, self._of = array("d"), array("d"), array("b"), array("q")

    def add(self, weighed: Weighed) -> None:
        result = weighed.result
        key = result.batch.prompt_id, result.batch.round
        number = self._rounds.get(key)
        if number is None:
            number = self._rounds[key] = len(self._plans)
            self._plans.append(weighed.plan)
            self._harm.append(0.0)
            self._unsure.append(0.0)
            self._seen.append(0)
        self._harm[number] += weighed.harm_sum
        unsure = result.verdicts == int(Verdict.UNDETERMINED)
        if unsure.any():
            self._unsure[number] += float(np.exp(weighed.log_w[unsure]).sum())
        self._seen[number] += result.n
        if self._threshold is not None:
            self._scores.frombytes(np.asarray(result.scores, dtype=np.float64).tobytes())
            self._weights.frombytes(np.exp(weighed.log_w).tobytes())
            self._verdicts.frombytes(np.asarray(result.verdicts, dtype=np.int8).tobytes())
            self._of.frombytes(np.full(result.n, number, dtype=np.int64).tobytes())

    def done(self, failed: Sequence[str] = ()) -> Sensitivity | None:
        """None where there is no complete round, or nothing to change. Prompts that ``failed`` are left out."""
        if not self._plans:
            return None
        harm, unsure = np.array(self._harm), np.array(self._unsure)
        thresholds, note = self._thresholds()
        changes = [("as judged", harm)]
        if unsure.any():
            changes.append(("undetermined as harm", harm + unsure))
        changes += [(f"harm from {t:.3g} on", self._from(t)) for t in thresholds]
        values = [Change(label, self._estimates(sums, set(failed))) for label, sums in changes]
        return Sensitivity(tuple(values), note) if values[0].values else None

    def _estimates(self, sums: FloatArray, failed: set[str]) -> dict[str, float]:
        """``sums`` [rounds] of the weights of harm."""
        totals: dict[str, float] = {}
        masses: dict[str, float] = {}
        for (prompt, _), number in self._rounds.items():
            plan = self._plans[number]
            if prompt in failed or self._seen[number] != sum(plan.counts):
                continue
            mean = float(sums[number]) / float(plan.expected.sum())
            totals[prompt] = totals.get(prompt, 0.0) + plan.mass * mean
            masses[prompt] = masses.get(prompt, 0.0) + plan.mass
        return {prompt: total / masses[prompt] for prompt, total in totals.items()}

    def _thresholds(self) -> tuple[list[float], str]:
        if self._threshold is None:
            return [], "the judge has no threshold of its own"
        scores, verdicts = np.asarray(self._scores), np.asarray(self._verdicts)
        scored = np.isfinite(scores) & (verdicts != int(Verdict.UNDETERMINED))
        if not scored.any():
            return [], "the answers have no scores"
        harm = verdicts[scored] == int(Verdict.HARM)
        if not np.array_equal(harm, scores[scored] >= self._threshold):
            return [], "scores and threshold do not say by themselves what this judge calls harm"
        span = float(np.ptp(scores[scored]))
        if span == 0.0 or len(np.unique(scores[scored])) < 3:
            return [], "the scores are two values, between which no threshold changes anything"
        return [self._threshold + step * span for step in STEPS], ""

    def _from(self, threshold: float) -> FloatArray:
        """[rounds] sums of weights if harm were the scores from ``threshold`` on."""
        scores, verdicts = np.asarray(self._scores), np.asarray(self._verdicts)
        scored = np.isfinite(scores) & (verdicts != int(Verdict.UNDETERMINED))
        harm = np.where(scored, scores >= threshold, verdicts == int(Verdict.HARM))
        weights, rounds = np.asarray(self._weights)[harm], np.asarray(self._of)[harm]
        return np.bincount(rounds, weights=weights, minlength=len(self._plans)).astype(np.float64)
