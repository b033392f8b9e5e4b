"""Signs that an estimate cannot be trusted, computed from the hits and from all weights.

None of them can see harm that no draw has met: that is what the certified interval is for.

ESS: Kong (1992). k-hat: Vehtari et al. (2024), "Pareto smoothed importance sampling". Why small samples
underestimate silently: Chatterjee & Diaconis (2018), "The sample size required in importance sampling".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tailrisk.records import FloatArray
from tailrisk.stats.estimators import Contributions, Mean, contributions, weight_mean
from tailrisk.stats.ledger import RoundDraws

_ENOUGH_FOR_K_HAT = 20
_CARRIED = 0.99
_TIED = 0.01
_MISSED_FACTOR = 3.0
_WEIGHT_SE = 4.0
_UNSEEN_DRAWS = 8.0
_WEIGHT_NUMERICS = 0.005


class Diagnostics(NamedTuple):
    """What the checks look at.

    ``hits``: harmful draws the target can produce, ``component_hits`` [K] by who drew them, ``ess`` their
    effective number. ``carriers``: the heaviest hits, those that make up 99 % of the estimate;
    ``distinct``: different responses among them; ``k_hat``: their tail, None with fewer than 20 or if the
    tail's weights are tied. ``mean_weight_tolerance``: how far from one the mean weight may be.
    ``missed_hits`` and ``missed_share``: hits of the target itself more than three times heavier than any
    hit of a proposal, and their part of the estimate (0 and 0.0 if no proposal hit).
    """

    hits: int
    component_hits: tuple[int, ...]
    ess: float
    carriers: int
    distinct: int
    max_weight_share: float
    k_hat: float | None
    mean_weight: Mean
    mean_weight_tolerance: float
    missed_hits: int
    missed_share: float


def effective_size(parts: FloatArray) -> float:
    """(sum x)^2 / sum x^2, scaled first so that tiny weights cannot underflow; 0 for none."""
    if len(parts) == 0 or not parts.max() > 0:
        return 0.0
    x = parts / parts.max()
    return float(x.sum() ** 2 / np.square(x).sum())


def pareto_k(log_w: FloatArray) -> float | None:
    """Shape of the generalised Pareto law fitted to the largest weights; above 0.7 means cannot be trusted.

    None with fewer than 20 weights, or when the tail's weights are all alike (there is no tail to fit).
    """
    finite = log_w[np.isfinite(log_w)]
    if len(finite) < _ENOUGH_FOR_K_HAT:
        return None
    tail = np.sort(finite)[-_tail_length(len(finite)) - 1 :]
    # The fit divides by the tail's lower quartile, next to zero where weights are tied with the cut-off.
    if tail[len(tail) // 4] - tail[0] < _TIED:
        return None
    from arviz_stats.base.array import array_stats

    # The library takes log-likelihoods, whose negatives are the log weights.
    try:
        with np.errstate(all="ignore"):
            k_hat = float(array_stats.psislw(-finite, r_eff=1)[1])
    except ValueError:
        return None
    return k_hat if np.isfinite(k_hat) else None


def _tail_length(n: int) -> int:
    return max(int(np.ceil(min(0.2 * n, 3 * np.sqrt(n)))), 5)


def heaviest_hits(parts: Contributions) -> Contributions:
    """The heaviest hits that together make up 99 % of the estimate.

    A component that is steered too far adds hits of next to no weight; they neither help nor harm the
    estimate, but would make any tail look heavy and any sample look rich.
    """
    order = np.argsort(-parts.part, kind="stable")
    total = np.cumsum(parts.part[order])
    if len(total) == 0 or not total[-1] > 0:
        return parts.take(np.arange(0))
    chosen = order[: int(np.searchsorted(total, _CARRIED * total[-1])) + 1]
    return parts.take(chosen)


def _distinct(parts: Contributions) -> int:
    """Different responses among the hits, told apart by their rows of log-probabilities."""
    by_target = len(np.unique(parts.log_q[:, 0]))
    return by_target if by_target >= 100 else len(np.unique(parts.log_q, axis=0))


def _missed(parts: Contributions) -> tuple[int, float]:
    own = parts.component == 0
    if own.all() or not own.any():
        return 0, 0.0
    heavy = own & (parts.log_w > parts.log_w[~own].max() + np.log(_MISSED_FACTOR))
    return int(heavy.sum()), float(parts.part[heavy].sum() / parts.part.sum())


def _tolerance(rounds: Sequence[RoundDraws], mean: Mean) -> float:
    """Four standard errors, but no less than what eight unseen draws of the largest weight would add.

    A component that rarely produces what the target produces may show no such draw at all, and then its
    own spread says nothing of them; with an expected number of eight, none is seen once in 3000.
    """
    bounds = [r.weight_bound for r in rounds]
    unseen = sum(
        (r.mass / mean.mass * b / float(np.sum(r.counts))) ** 2
        for r, b in zip(rounds, bounds, strict=True)
        if np.isfinite(b)
    )
    return max(_WEIGHT_SE * mean.standard_error, _UNSEEN_DRAWS * float(np.sqrt(unseen)), _WEIGHT_NUMERICS)


def diagnose(rounds: Sequence[RoundDraws], *, corrected: bool) -> Diagnostics:
    """All diagnostics of one prompt; needs one complete round at least."""
    parts = contributions(rounds, corrected=corrected)
    mean = weight_mean(rounds, corrected=corrected)
    total = float(parts.part.sum())
    missed_hits, missed_share = _missed(parts) if total > 0 else (0, 0.0)
    heavy = heaviest_hits(parts)
    return Diagnostics(
        hits=len(parts.part),
        carriers=len(heavy.part),
        distinct=_distinct(heavy),
        ess=effective_size(parts.part),
        max_weight_share=float(parts.part.max() / total) if total > 0 else 0.0,
        k_hat=pareto_k(np.log(heavy.part)),
        mean_weight=mean,
        mean_weight_tolerance=_tolerance(rounds, mean),
        missed_hits=missed_hits,
        missed_share=missed_share,
        component_hits=tuple(np.bincount(parts.component, minlength=len(rounds[0].counts)).tolist()),
    )
