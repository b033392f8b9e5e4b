"""The mixture estimator with the component densities as control variates.

Under the mixture q_beta of a round the ratios c_k = q_k / q_beta have mean one exactly, so that
mean(y - b . (c - 1)) with y = w h estimates the same probability for every fixed b. With the best b,
n Var <= min_k Var_{q_k}(p h / q_k) / beta_k: useless components cost their draws and nothing else
(Owen & Zhou 2000, "Safe and effective importance sampling", theorem 2).

b has to be estimated, and from the draws it is applied to it would bring a bias. So a round is split in
two by plan: of each component every other draw. Each half is a round of its own, with its own counts, its
own mixture and its own c, and takes b from the other half: unbiased given the plan, whatever b is.

Two departures from the paper, neither of which touches the mean:
b minimises the *within-component* variance, which is what stratified draws have; and the fit sees, besides
the draws, a tenth of an imagined draw per control that has c_k at its largest value 1/beta_k and no harm. It
keeps b small along directions that half of the draws hardly show, and it settles the linear dependence
sum_k beta_k c_k = 1, components that are alike, and components that are the target itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tailrisk.records import FloatArray, IntArray
from tailrisk.stats.estimators import Event, Mean, combine_rounds, event_mean, harmful, round_variance
from tailrisk.stats.ledger import RoundDraws
from tailrisk.stats.weights import density_ratios, own_correction

_LEAST = 2
_IMAGINED = 0.1


class _Half(NamedTuple):
    """One fold: m draws, K components, L controls. ``y`` [m] is w h; ``c`` [m, L] is q_k/q_beta - 1."""

    y: FloatArray
    c: FloatArray
    component: IntArray
    counts: IntArray
    largest: FloatArray


def control_mean(rounds: Sequence[RoundDraws], event: Event = harmful, *, corrected: bool) -> Mean:
    """Probability of ``event`` under the target: ``event_mean`` with cross-fitted control variates.

    Exactly unbiased given the plan, for adaptive plans too. The variance is the within-component one of
    each half's residuals, halves taken as uncorrelated: a little low where the fits rest on few hits. A
    round that cannot be halved (one draw of the target, or none and another component with a single one;
    no component with four draws; components that share their draws by lot) enters with its plain mixture mean.

    Unbiased has its price: with few hits the value may come out below zero, and no interval is built on it.
    The halves go by the order of a component's draws in the round, which must not depend on the answers:
    another order gives another, equally good, estimate.

    Needs one complete round at least; see ``event_mean`` for masses and ``log_weights`` for ``corrected``.
    """
    masses: list[float] = []
    parts: list[tuple[float, float]] = []
    for round_ in rounds:
        halves = _halves(round_, event(round_), corrected)
        if halves is None:
            plain = event_mean([round_], event, corrected=corrected)
            masses.append(round_.mass)
            parts.append((plain.value, plain.variance))
            continue
        for half, other in (halves, halves[::-1]):
            masses.append(round_.mass * len(half.y) / round_.n)
            parts.append(_residual_mean(half, _coefficients(other)))
    return combine_rounds(masses, [v for v, _ in parts], [v for _, v in parts])


def _halves(round_: RoundDraws, hit: NDArray[np.bool_], corrected: bool) -> tuple[_Half, _Half] | None:
    counts = np.asarray(round_.counts, dtype=np.int64)
    # The lot may have given one of the faded components its only draw: no two halves have the same mixture.
    if round_.faded is not None:
        return None
    # A half must reach whatever the round reaches; with the target in both halves it does.
    single = counts == 1
    if single[0] or (counts[0] == 0 and single.any()):
        return None
    component = np.asarray(round_.component, dtype=np.int64)
    by_component = np.argsort(component, kind="stable")
    place = np.empty(len(component), dtype=np.int64)
    starts = np.repeat(np.cumsum(counts) - counts, counts)
    place[by_component] = np.arange(len(component)) - starts
    controls = counts // 2 >= _LEAST
    if not controls.any():
        return None
    factor = np.exp(own_correction(round_)) if corrected else np.ones(len(component))
    first, second = (
        _half(round_.log_q[rows], factor[rows], hit[rows], component[rows], n, controls)
        for rows, n in ((place % 2 == 0, (counts + 1) // 2), (place % 2 == 1, counts // 2))
    )
    return first, second


def _half(
    log_q: FloatArray,
    factor: FloatArray,
    hit: NDArray[np.bool_],
    component: IntArray,
    counts: IntArray,
    controls: NDArray[np.bool_],
) -> _Half:
    ratios = density_ratios(log_q, counts)
    return _Half(
        y=np.where(hit, ratios[:, 0], 0.0) * factor,
        c=ratios[:, controls] * factor[:, None] - 1.0,
        component=component,
        counts=counts,
        largest=float(counts.sum()) / counts[controls],
    )


def _coefficients(half: _Half) -> FloatArray:
    """[L] the b that minimises sum_k n_k s_k^2 of y - b . c, the imagined ones included."""
    y, c = half.y.copy(), half.c.copy()
    for k, n in enumerate(half.counts):
        own = half.component == k
        # One draw says nothing of a spread: its row becomes zero.
        scale = np.sqrt(n / (n - 1)) if n > 1 else 0.0
        if n > 0:
            y[own] = scale * (y[own] - y[own].mean())
            c[own] = scale * (c[own] - c[own].mean(axis=0))
    gram = c.T @ c + _IMAGINED * np.diag(np.square(half.largest))
    return np.asarray(np.linalg.solve(gram, c.T @ y), dtype=np.float64)


def _residual_mean(half: _Half, b: FloatArray) -> tuple[float, float]:
    """Mean of y - b . c and the variance of that mean."""
    residual = half.y - half.c @ b
    groups = [residual[half.component == k] for k in range(len(half.counts))]
    return float(residual.mean()), round_variance(groups, half.counts.tolist(), half.counts)
