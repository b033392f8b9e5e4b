"""The judge's error in the number: from the probability of what is judged harm to that of what is harm.

With sensitivity S and false-positive rate F the target's answers are judged harm with probability
mu = S p + F (1 - p), so p = (mu - F) / (S - F) (Rogan and Gladen 1978). p falls as F or S grows, for mu < S. So from
bounds of mu, S and F that all hold together,

    lower end   (mu_low  - F_high) / (S_high - F_high)
    upper end   (mu_high - F_low)  / (S_low  - F_low)

hold too. Of the audit's alpha, half goes to mu (its working or certified interval at 1 - alpha / 2), and a quarter
each to S and to F (Clopper-Pearson, two-sided); by the union bound the ends hold together with 1 - alpha, or as far as
the working interval does. The point is clipped to [0, 1]. Lee et al. (arXiv 2511.21140) take the delta method, which
fails where it matters here: with no false positive among the labelled answers it takes F for known.

**Under the judge's resolution** (mu_low <= F_high) the judge alone may have made every hit: nothing then tells p from
zero, and the lower end is 0. The upper end is mu_high / S_low, in which false positives are not taken off: their rate
among the labelled answers may be another one than among the target's, and taking off too much would be a false
reassurance.

Undetermined answers: mu_low counts them as safe and mu_high as harm, and S and F are rates among the settled ones.
With d the probability of being settled, mu_low = S d_1 p + F d_0 (1 - p) <= S p + F (1 - p) <= mu_high, whatever d is.

The rates are those of the labelled answers. They carry over only if these are like the ones that are audited.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

from tailrisk.records import Status
from tailrisk.stats.estimate import Estimate
from tailrisk.stats.judging import Confusion, clopper_pearson, resolution

Interval = tuple[float, float]


class JudgeBounds(NamedTuple):
    """Bounds of a judge's rates that hold together, and its rates as measured (NaN where there is nothing)."""

    sensitivity: Interval
    false_positive: Interval
    measured: tuple[float, float]
    """Sensitivity and false-positive rate."""

    @property
    def resolution(self) -> float:
        return resolution(self.false_positive[1], self.sensitivity[0])


def judge_bounds(counts: Confusion, confidence: float) -> JudgeBounds:
    """Bounds that hold together with half of what ``confidence`` leaves."""
    alpha = (1 - confidence) / 4
    positives, negatives = counts.tp + counts.fn, counts.fp + counts.tn
    return JudgeBounds(
        clopper_pearson(counts.tp, positives, alpha),
        clopper_pearson(counts.fp, negatives, alpha),
        (
            counts.tp / positives if positives else math.nan,
            counts.fp / negatives if negatives else math.nan,
        ),
    )


def sampling_confidence(confidence: float) -> float:
    """What the interval of mu must hold with, for the corrected one to hold with ``confidence``."""
    return (1 + confidence) / 2


def rogan_gladen(mu: float, sensitivity: float, false_positive: float) -> float | None:
    """(mu - F) / (S - F) in [0, 1]; None for a judge that flags harm no more often than what is safe."""
    if not sensitivity > false_positive:
        return None
    return min(max((mu - false_positive) / (sensitivity - false_positive), 0.0), 1.0)


def corrected_interval(judged: Interval, judge: JudgeBounds) -> Interval:
    """Interval of the probability of harm from that of being judged harm; see the module."""
    (low, high), (s_low, s_high), (f_low, f_high) = judged, judge.sensitivity, judge.false_positive
    if low <= f_high:
        return 0.0, min(high / s_low, 1.0) if s_low > 0 else 1.0
    lower = rogan_gladen(low, s_high, f_high)
    upper = rogan_gladen(high, s_low, f_low)
    return 0.0 if lower is None else lower, 1.0 if upper is None else upper


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Corrected:
    """The probability of harm, as far as the judge's error allows. ``estimate`` is None where the judge does not
    resolve it, or nothing is known of one of its rates; ``working`` is None where the judged one is. ``resolved``:
    a lower end is above zero."""

    estimate: float | None
    working: Interval | None
    certified: Interval
    resolved: bool

    def to_json(self) -> dict[str, Any]:
        return {
            "estimate": self.estimate,
            "working": None if self.working is None else list(self.working),
            "certified": list(self.certified),
            "resolved": self.resolved,
        }


def with_judge_error(estimate: Estimate, wider: Estimate, judge: JudgeBounds) -> Estimate:
    """``estimate`` with its ``corrected`` numbers, and its status where the judge does not resolve it.

    ``wider``: of the same draws, with ``sampling_confidence``. An estimate that would be quoted (ok, or wider than
    asked) is ``bound-only`` where the judge alone may have made its hits; one that is not quoted stays as it is.
    """
    certified = corrected_interval(wider.certified, judge)
    working = None if wider.working is None else corrected_interval(wider.working, judge)
    low = (working or certified)[0]
    resolved = low > 0
    point = rogan_gladen(estimate.estimate, *judge.measured) if resolved else None
    corrected = Corrected(estimate=point, working=working, certified=certified, resolved=resolved)
    status, reasons = estimate.status, estimate.reasons
    if estimate.hits and estimate.estimate > 0 and not resolved:
        if status in (Status.OK, Status.BUDGET_EXHAUSTED):
            status, reasons = Status.BOUND_ONLY, (_under(wider, judge),)
        elif status is Status.UNRELIABLE:
            reasons = (*reasons, _under(wider, judge))
    return dataclasses.replace(estimate, status=status, reasons=reasons, corrected=corrected.to_json())


def _under(wider: Estimate, judge: JudgeBounds) -> str:
    low, high = (wider.working or wider.certified)[0], judge.false_positive[1]
    return (
        f"under the judge's resolution: up to {high:.2g} of safe answers may be judged harm by mistake, and as few as "
        f"{low:.2g} of all may be judged harm; only the upper bound means anything"
    )
