"""The certified interval of a prompt: finite-sample, whatever the proposals do.

alpha = 1 - confidence is split in two. Half goes to a two-sided binomial interval from the
target's own draws, half to betting on X = w h over all draws (both sides, a quarter of alpha each; the
lower side alone if the weights carry a numerical correction, for then they have no bound). Both hold
at every round end at once, so planning and stopping by results does not harm them.

With ``corrected`` weights the betting side is about the law *as scored*, the target's own draws are about
the law *as sampled*: two numerical versions of the same model. The upper end then rests on the second.

Where a strong judge read a sample of the draws, X = w R h / pi, whose bound is that of w over the least pi, and alpha
is split between its two sides: the target's own draws are then no binomial. The factors of the capital are monotone
in R, and given the draws the R are negatively associated (``tailrisk.stats.sampling``), so the capital's mean is no
larger than with w h in the place of X. With ``corrected`` weights the upper end is that of R h / pi over the target's
own draws.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tailrisk.stats.estimators import Event, harmful, harmful_or_undetermined
from tailrisk.stats.intervals import (
    Bounded,
    Certified,
    betting_lower,
    betting_upper,
    binomial_interval,
    combine_certified,
)
from tailrisk.stats.ledger import RoundDraws
from tailrisk.stats.weights import log_weights


def certify(rounds: Sequence[RoundDraws], *, alpha: float, corrected: bool) -> Certified:
    """The certified interval of complete rounds at level 1 - alpha."""
    if any(r.strong is not None and r.strong.least < 1.0 for r in rounds):
        return _certify_sampled(rounds, alpha=alpha, corrected=corrected)
    own = [r.component == 0 for r in rounds]
    safe_side = sum(int(np.count_nonzero(r.harmful & o)) for r, o in zip(rounds, own, strict=True))
    unsure = sum(int(np.count_nonzero(r.undetermined & o)) for r, o in zip(rounds, own, strict=True))
    trials = sum(int(np.count_nonzero(o)) for o in own)
    binomial = binomial_interval(safe_side, safe_side + unsure, trials, alpha / 2)
    low = _values(rounds, harmful, corrected)
    settled = corrected or not any(r.undetermined.any() for r in rounds)
    high = low if settled else _values(rounds, harmful_or_undetermined, corrected)
    # Bounds that are wider than the target's own are not needed in full, but where the two contradict each other.
    found = _certified(low, high, binomial, alpha, corrected, enough=binomial)
    if found.consistent:
        return found
    return _certified(low, high, binomial, alpha, corrected, enough=(0.0, 1.0))


def _values(rounds: Sequence[RoundDraws], event: Event, corrected: bool) -> list[Bounded]:
    """X = w h of each round."""
    rows = []
    for round_ in rounds:
        x = np.exp(log_weights(round_, np.flatnonzero(event(round_)), corrected=corrected))
        rows.append(Bounded(x, round_.n - len(x), round_.weight_bound))
    return rows


def _certify_sampled(rounds: Sequence[RoundDraws], *, alpha: float, corrected: bool) -> Certified:
    values, zeros = [], 0
    above: list[Bounded] = []
    for r in rounds:
        inverse = (
            np.ones(r.n) if r.strong is None else 1.0 / np.where(r.strong.asked, r.strong.inclusion, 1.0)
        )
        least = 1.0 if r.strong is None else r.strong.least
        x = np.exp(log_weights(r, corrected=corrected)) * inverse
        values.append(x[r.harmful])
        zeros += r.n - len(values[-1])
        high, n, bound = harmful_or_undetermined(r), r.n, r.weight_bound
        if corrected:
            own = r.component == 0
            x, high, n, bound = inverse, high & own, int(np.count_nonzero(own)), 1.0
        above.append(Bounded(x[high], n - int(np.count_nonzero(high)), bound / least if least else math.inf))
    low = betting_lower(np.concatenate(values), zeros, alpha / 2)
    return combine_certified([(low, betting_upper(above, alpha / 2))])


def _certified(
    low: Sequence[Bounded],
    high: Sequence[Bounded],
    binomial: tuple[float, float],
    alpha: float,
    corrected: bool,
    *,
    enough: tuple[float, float],
) -> Certified:
    values, zeros = np.concatenate([r.values for r in low]), sum(r.zeros for r in low)
    if corrected:
        return combine_certified([binomial, (betting_lower(values, zeros, alpha / 2, enough=enough[0]), 1.0)])
    lower = betting_lower(values, zeros, alpha / 4, enough=enough[0])
    return combine_certified([binomial, (lower, betting_upper(high, alpha / 4, enough=enough[1]))])
