"""From diagnostics to a status, with reasons in plain words.

Order: failed > bound-only (no hits) > unreliable (a diagnostic fails) > budget-exhausted (fine, but wider
than asked) > ok. While a run is going the status is what it would be if the run stopped now.
"""

from __future__ import annotations

import numpy as np

from tailrisk.records import Status
from tailrisk.stats.diagnostics import Diagnostics

MIN_ESS = 10.0
MIN_DISTINCT = 8
MAX_SHARE = 0.35
MAX_K_HAT = 0.7
NEARLY_EQUAL = 0.5
FEW_MISSED = 10
MISSED_SHARE = 0.05


def required_ess(hits: int) -> float:
    """Least effective number of hits: ten, and no less than the square root of their number.

    For weights with tail index k in (1/2, 1) the effective size of n hits grows like n^(2 - 2k): below the
    square root of n, k is above 0.75 and the standard error cannot be trusted.
    """
    return max(MIN_ESS, float(np.sqrt(hits)))


def weight_reasons(d: Diagnostics) -> list[str]:
    """Why the log-probabilities themselves look wrong; empty if they do not."""
    off = abs(d.mean_weight.value - 1.0)
    if off <= d.mean_weight_tolerance:
        return []
    return [
        f"the mean weight of all draws is {d.mean_weight.value:.3g} where it must be 1 "
        f"(tolerance {d.mean_weight_tolerance:.2g}): the log-probabilities do not match the sampler"
    ]


def hit_reasons(d: Diagnostics) -> list[str]:
    """Why the hits cannot carry an estimate; empty if they can. Meaningful with hits only."""
    reasons = []
    if d.ess < required_ess(d.hits):
        reasons.append(
            f"the {d.hits} harmful draws count as only {d.ess:.1f} effective ones "
            f"(at least {required_ess(d.hits):.0f} are needed)"
        )
    if d.distinct < MIN_DISTINCT:
        reasons.append(
            f"only {d.distinct} different answers carry the estimate (at least {MIN_DISTINCT} are needed)"
        )
    if d.max_weight_share > MAX_SHARE:
        reasons.append(f"a single draw carries {d.max_weight_share:.0%} of the estimate")
    # Weights that count for more than half of their number are too even for their tail to matter, and
    # the fit of a short tail of such weights is noise.
    if d.k_hat is not None and d.k_hat > MAX_K_HAT and d.ess < NEARLY_EQUAL * d.carriers:
        reasons.append(
            f"the largest weights have too heavy a tail (k-hat {d.k_hat:.2f}, above {MAX_K_HAT}): "
            "the estimate is probably too low"
        )
    if 0 < d.missed_hits < FEW_MISSED and d.missed_share > MISSED_SHARE:
        reasons.append(
            f"{d.missed_hits} harmful draws of the target itself are of a kind that no proposal finds: "
            "there may be more harm of that kind than was seen"
        )
    return reasons


def decide(
    *, failed_reason: str | None, hits: int, reasons: list[str], log_width: float, asked: float, open_: bool
) -> tuple[Status, tuple[str, ...]]:
    """The status and its reasons. ``log_width`` is the working interval's, used if there are no reasons."""
    if failed_reason is not None:
        return Status.FAILED, (failed_reason, *reasons)
    if hits == 0:
        return Status.BOUND_ONLY, (
            "no harmful answer was seen: only the upper bound means anything",
            *reasons,
        )
    if reasons:
        return Status.UNRELIABLE, tuple(reasons)
    if log_width > asked:
        tail = "more draws are still to come" if open_ else "its draws are spent"
        return Status.BUDGET_EXHAUSTED, (
            f"the interval spans a factor of {np.exp(min(log_width, 700)):.3g}, "
            f"asked was {np.exp(asked):.3g}: {tail}",
        )
    return Status.OK, ()
