"""Means given harm: how severe, of which category. For those only, never for the probability of harm.

E_p[g | h] = E_p[h g] / E_p[h], each side an unbiased weighted mean over the same draws. Their ratio is
biased of order 1/n, which a share or a severity can bear: numerator and denominator err together, on the
same hits. For the probability itself the corresponding ratio would be sum w h / sum w: biased where the
unbiased mean is at hand, and noisy with the weights of all the refusals, which a good proposal does not
draw (Owen 2013, "Monte Carlo theory, methods and examples", section 9.2).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tailrisk.errors import InputError
from tailrisk.records import FloatArray
from tailrisk.stats.estimators import Event, harmful, round_variance
from tailrisk.stats.ledger import RoundDraws
from tailrisk.stats.weights import log_weights


class Conditional(NamedTuple):
    """A mean given the event and its standard error, both of g's shape: [] or [G]."""

    value: FloatArray
    standard_error: FloatArray


class _Hits(NamedTuple):
    """One round's hits that the target can produce: ``weight`` [h] is a w / n, ``g`` [h, G]."""

    round_: RoundDraws
    rows: NDArray[np.int64]
    weight: FloatArray
    g: FloatArray


def conditional_mean(
    rounds: Sequence[RoundDraws], values: Sequence[FloatArray], event: Event = harmful, *, corrected: bool
) -> Conditional:
    """sum_r (a_r/n_r) sum_i w h g / sum_r (a_r/n_r) sum_i w h, with the standard error of a ratio.

    ``values``: one array g per round, [n] or [n, G], such as scores, or indicators of G categories; what
    stands at draws without the event is not looked at. Standard error by the delta method: that of the
    mean of w h (g - ratio), within components, over the estimate of the probability. NaN without hits;
    an infinite error with a single one, which shows no spread.

    Raises:
        InputError: values that do not match the rounds, or are not finite at a hit.
    """
    hits = _hits(rounds, values, event, corrected)
    shape = np.shape(values[0])[1:]
    everyone = np.concatenate([h.weight for h in hits])
    if not everyone.sum() > 0:
        return Conditional(np.full(shape, np.nan), np.full(shape, np.nan))
    # Weights of rare events may be as small as their squares are not representable.
    scale = everyone.max()
    weights = [h.weight / scale for h in hits]
    total = float(np.sort(everyone / scale).sum())
    parts = np.concatenate([w[:, None] * h.g for w, h in zip(weights, hits, strict=True)])
    value = np.sort(parts, axis=0).sum(axis=0) / total
    variance = np.zeros_like(value)
    for h, w in zip(hits, weights, strict=True):
        variance += _variance(h, w[:, None] * (h.g - value))
    error = np.sqrt(variance) / total if len(everyone) > 1 else np.full_like(value, np.inf)
    return Conditional(value.reshape(shape), error.reshape(shape))


def _hits(
    rounds: Sequence[RoundDraws], values: Sequence[FloatArray], event: Event, corrected: bool
) -> list[_Hits]:
    if len(values) != len(rounds):
        raise InputError(f"values: {len(values)} arrays for {len(rounds)} rounds; pass one array per round")
    found = []
    for i, (round_, g) in enumerate(zip(rounds, values, strict=True)):
        table = np.asarray(g, dtype=np.float64)
        if table.ndim not in (1, 2) or len(table) != round_.n:
            raise InputError(
                f"values[{i}]: shape {table.shape} for a round of {round_.n} draws; pass [n] or [n, G]"
            )
        w = np.exp(log_weights(round_, corrected=corrected))
        rows = np.flatnonzero(event(round_) & (w > 0))
        chosen = table.reshape(round_.n, -1)[rows]
        if not np.isfinite(chosen).all():
            bad = int((~np.isfinite(chosen)).any(axis=1).sum())
            raise InputError(
                f"values[{i}]: not finite at {bad} harmful draws; give them a number or exclude them by event"
            )
        found.append(_Hits(round_, rows, w[rows] * (round_.mass / float(round_.expected.sum())), chosen))
    return found


def _variance(hits: _Hits, residual: FloatArray) -> FloatArray:
    """[G] variance of the sum of ``residual`` [h, G] over one round's draws, within components."""
    strata, counts = hits.round_.strata
    stratum = strata[hits.rows]
    ordered = [np.sort(residual[stratum == k], axis=0) for k in range(len(counts))]
    n = float(counts.sum())
    each = [
        round_variance([o[:, g] for o in ordered], counts.tolist(), counts) for g in range(residual.shape[1])
    ]
    return np.array(each) * n**2
