"""What one audit knows of a prompt, at any level of confidence: one side of a comparison.

Where the diagnostics let the estimate be quoted this is the working interval, elsewhere the certified one; both hold
for the probability of what is judged harm, or of harm where the judge's error is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tailrisk.records import Status
from tailrisk.stats.certify import certify
from tailrisk.stats.estimate import Estimate, working_means
from tailrisk.stats.estimators import event_mean, harmful_or_undetermined
from tailrisk.stats.intervals import working_interval
from tailrisk.stats.judgeerror import Interval, corrected_interval, judge_bounds
from tailrisk.stats.judging import Confusion
from tailrisk.stats.ledger import RoundDraws, is_complete

QUOTED = (Status.OK, Status.BUDGET_EXHAUSTED)


@dataclass(frozen=True, kw_only=True)
class Working:
    """Means with standard errors: ``low`` counts undetermined answers as safe, ``high`` as harm. ``df`` of both."""

    low: tuple[float, float]
    high: tuple[float, float]
    df: float


@dataclass(frozen=True, kw_only=True)
class Side:
    """``working`` is None where the estimate may not be quoted. ``rounds`` are complete. ``judge``: how the judge did
    on labelled answers, where that is known."""

    estimate: Estimate
    working: Working | None
    rounds: tuple[RoundDraws, ...]
    corrected: bool
    judge: Confusion | None = None
    _known: dict[float, Interval] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of(
        cls,
        estimate: Estimate,
        rounds: Sequence[RoundDraws],
        *,
        corrected: bool,
        judge: Confusion | None = None,
    ) -> Side:
        """Of an estimate and the rounds it was made from."""
        used = tuple(r for r in rounds if is_complete(r))
        working = None
        if estimate.status in QUOTED and estimate.working is not None:
            low = event_mean(used, corrected=corrected)
            high = low
            if estimate.undetermined:
                high = event_mean(used, harmful_or_undetermined, corrected=corrected)
            ends = working_means(low, high, estimate.max_weight_share, used, corrected)
            working = Working(low=ends[0], high=ends[1], df=max(estimate.ess - 1.0, 1.0))
        return cls(estimate=estimate, working=working, rounds=used, corrected=corrected, judge=judge)

    @property
    def failed(self) -> bool:
        return self.estimate.status is Status.FAILED

    def interval(self, alpha: float) -> Interval:
        """At level 1 - ``alpha``, two-sided: working where the estimate may be quoted, else certified."""
        if self.judge is None:
            return self._judged(alpha)
        return corrected_interval(self._judged(alpha / 2), judge_bounds(self.judge, 1 - alpha))

    def _judged(self, alpha: float) -> Interval:
        if self.working is None:
            return self._certified(alpha)
        w = self.working
        return working_interval(w.low, w.high, df=w.df, confidence=1 - alpha)

    def _certified(self, alpha: float) -> Interval:
        if not self.rounds:
            return 0.0, 1.0
        if alpha not in self._known:
            self._known[alpha] = certify(self.rounds, alpha=alpha, corrected=self.corrected).interval
        return self._known[alpha]
