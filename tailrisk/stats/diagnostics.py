"""Signs that an estimate cannot be trusted, computed from the hits and from all weights.

None of them can see harm that no draw has met: that is what the certified interval is for. What they can
see is whether anything but luck, or a single proposal, stands behind the number.

ESS: Kong (1992). k-hat: Vehtari et al. (2024), "Pareto smoothed importance sampling". Why small samples
underestimate silently: Chatterjee & Diaconis (2018), "The sample size required in importance sampling".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tailrisk.records import FloatArray, IntArray
from tailrisk.stats.estimators import Contributions, Mean, contributions, event_mean, ratio_means
from tailrisk.stats.ledger import RoundDraws
from tailrisk.stats.overlap import Overlap, overlap, restrictions, without_component
from tailrisk.stats.reverse import Reverse, reverse_check

_ENOUGH_FOR_K_HAT = 20
_CARRIED = 0.99
_TIED = 0.01
_WEIGHT_SE = 4.0
_UNSEEN_DRAWS = 8.0
_WEIGHT_NUMERICS = 0.005
_RATIO_NUMERICS = 0.25


class Growth(NamedTuple):
    """What the first half of the estimate's weight says and what the rest says, with standard errors; the
    rounds are halved in the order in which they were drawn."""

    first: Mean
    last: Mean


class Diagnostics(NamedTuple):
    """What the checks look at.

    ``estimate``: of the probability. ``hits``: harmful draws the target can produce, ``component_hits`` [K] by
    who drew them, ``component_parts`` [K] what these add to the estimate, ``ess`` their effective number;
    ``draws`` of all kinds, ``target_draws`` of the target.
    ``carriers``: the heaviest hits, those that make up 99 % of the estimate; ``distinct``: different responses
    among them; ``k_hat``: their tail, None with fewer than 20 or
    if the tail's weights are tied. ``mean_ratios`` [K]: means of q_k/q_beta over all draws, the first being
    the mean weight, each one if log-probabilities and samplers agree (None for components without draws);
    ``tolerances`` [K]: how far from one they may be. ``without`` [K]: the estimate when component k is left
    out and the effective number of hits it rests on (None without draws). ``growth``: None for one round.
    """

    estimate: float
    hits: int
    draws: int
    target_draws: int
    component_hits: tuple[int, ...]
    component_parts: tuple[float, ...]
    ess: float
    carriers: int
    distinct: int
    max_weight_share: float
    k_hat: float | None
    mean_ratios: tuple[Mean | None, ...]
    tolerances: tuple[float, ...]
    reverse: Reverse
    overlap: Overlap
    without: tuple[tuple[float, float] | None, ...]
    growth: Growth | None

    @property
    def mean_weight(self) -> Mean:
        mean = self.mean_ratios[0]
        assert mean is not None, "the mean weight is there whoever drew"
        return mean


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
    if len(parts.part) >= 100:
        by_target = len(np.unique(parts.log_q[:, 0]))
        if by_target >= 100:
            return by_target
    # Adding zero makes one number of 0.0 and -0.0, whose bytes differ.
    rows = np.ascontiguousarray(parts.log_q + 0.0)
    return len({row.tobytes() for row in rows})


def _tolerance(rounds: Sequence[RoundDraws], k: int, mean: Mean, corrected: bool) -> float:
    """Four standard errors, but no less than what eight unseen draws of the largest ratio would add.

    A component that rarely produces what component k produces may show no such draw at all, and then its
    own spread says nothing of them; with an expected number of eight, none is seen once in 3000.

    Corrected weights are unbiased whether the scored densities of the proposals sum to one or not, and in
    half precision that of a rare opening need not: its probability is measured in another pass.
    """
    least = _RATIO_NUMERICS if k and corrected else _WEIGHT_NUMERICS
    used = [r for r in rounds if r.counts[k] and (r.faded is None or r.faded[k] == 0.0)]
    unseen = sum((r.mass / mean.mass / float(r.counts[k])) ** 2 for r in used)
    return max(_WEIGHT_SE * mean.standard_error, _UNSEEN_DRAWS * float(np.sqrt(unseen)), least)


def _without(
    rounds: Sequence[RoundDraws], counts: IntArray, hits: int, corrected: bool
) -> tuple[tuple[float, float] | None, ...]:
    rows: list[tuple[float, float] | None] = []
    for k, count in enumerate(counts):
        rest = without_component(rounds, k) if k and count and hits else []
        if not rest:
            rows.append(None)
            continue
        part = contributions(rest, corrected=corrected).part
        rows.append((float(part.sum()), effective_size(part)))
    return tuple(rows)


def _growth(rounds: Sequence[RoundDraws], corrected: bool) -> Growth | None:
    if len(rounds) < 2:
        return None
    done = np.cumsum([r.mass for r in rounds])
    # The first half ends with the round that brings it nearest to half of the weight.
    cut = 1 + int(np.argmin(np.abs(done[:-1] / done[-1] - 0.5)))
    return Growth(
        event_mean(rounds[:cut], corrected=corrected), event_mean(rounds[cut:], corrected=corrected)
    )


def diagnose(rounds: Sequence[RoundDraws], *, corrected: bool) -> Diagnostics:
    """All diagnostics of one prompt; needs one complete round at least."""
    parts = contributions(rounds, corrected=corrected)
    counts = np.sum([r.counts for r in rounds], axis=0).astype(np.int64)
    means = ratio_means(rounds, corrected=corrected)
    total = float(parts.part.sum())
    heavy = heaviest_hits(parts)
    reverse = reverse_check(parts)
    return Diagnostics(
        estimate=total,
        hits=len(parts.part),
        draws=sum(r.n for r in rounds),
        target_draws=int(counts[0]),
        carriers=len(heavy.part),
        distinct=_distinct(heavy),
        ess=effective_size(parts.part),
        max_weight_share=float(parts.part.max() / total) if total > 0 else 0.0,
        k_hat=pareto_k(np.log(heavy.part)),
        mean_ratios=means,
        tolerances=tuple(_tolerance(rounds, k, m, corrected) if m else 0.0 for k, m in enumerate(means)),
        component_hits=tuple(np.bincount(parts.component, minlength=len(counts)).tolist()),
        component_parts=tuple(
            np.bincount(parts.component, weights=parts.part, minlength=len(counts)).tolist()
        ),
        reverse=reverse,
        overlap=overlap(parts, counts, reverse.own_hits - reverse.missed_hits, restrictions(rounds)),
        without=_without(rounds, counts, len(parts.part), corrected),
        growth=_growth(rounds, corrected) if total > 0 else None,
    )
