"""Points and variances: per-round unbiased means, combined with masses fixed before each round.

mu_r = (1/n_r) sum_i w_i h_i is unbiased given everything before round r, and so is any combination
sum_r a_r mu_r with a_r chosen before round r is drawn and sum a_r = 1: whatever rule chose components,
counts and the moment to stop. While a prompt is open the masses are renormalised by their sum so far.

Variance: draws of a component are independent given the past, so Var(mu_r) = sum_k n_rk s_rk^2 / n_r^2
with s_rk^2 the variance of w_r h under q_k; components that share their draws by lot are one stratum, of their
mixture. The weight w_r depends on the round's own shares, so draws of
other rounds are *reweighted to round r's shares* before they are pooled into s_rk^2: pooling w h as it
stands would mix variances of different mixtures.

All sums run over values sorted within round and component, so they do not depend on the order of arrival.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tailrisk.records import FloatArray, IntArray
from tailrisk.stats.ledger import RoundDraws
from tailrisk.stats.weights import density_ratios, mixture_log_weights, own_correction

Event = Callable[[RoundDraws], NDArray[np.bool_]]


class Mean(NamedTuple):
    """An unbiased mean, the variance of that mean, and the mass of the rounds it rests on."""

    value: float
    variance: float
    mass: float

    @property
    def standard_error(self) -> float:
        return float(np.sqrt(self.variance))


def harmful(round_: RoundDraws) -> NDArray[np.bool_]:
    return round_.harmful


def harmful_or_undetermined(round_: RoundDraws) -> NDArray[np.bool_]:
    return round_.harmful | round_.undetermined


def _spread(values: FloatArray, n: int) -> tuple[float, float]:
    """Sum and ddof-1 variance of n numbers of which ``values`` (sorted) are the non-zero ones."""
    if len(values) == 0:
        return 0.0, 0.0
    total = float(np.add.reduce(values))
    if n < 2:
        return total, 0.0
    mean = total / n
    away = values - mean
    return total, (float(np.add.reduce(away * away)) + (n - len(values)) * mean * mean) / (n - 1)


def round_variance(
    groups: Sequence[FloatArray],
    available: Sequence[int],
    counts: FloatArray | IntArray,
    faded: FloatArray | None = None,
) -> float:
    """sum_k n_k s_k^2 / n^2; a component seen less than twice gets the overall variance of all draws.

    ``groups``: the non-zero values of each of the K components, sorted; ``available`` [K]: how many values
    each component has, zeros included; ``counts`` [K]: n_k, or the draws expected. Of those that are ``faded`` [K],
    a draw is of a component by lot: sum_k f_k (m_k - m)^2 is added, with the means m_k and their own mean m.
    """
    totals, spreads = map(list, zip(*map(_spread, groups, available), strict=True))
    means = [t / n if n else 0.0 for t, n in zip(totals, available, strict=True)]
    if any(n < 2 and c > 0 for n, c in zip(available, counts, strict=True)):
        total, overall = _spread(np.sort(np.concatenate(groups)), sum(available))
        spreads = [overall if n < 2 else s for s, n in zip(spreads, available, strict=True)]
        means = [m if n else total / sum(available) for m, n in zip(means, available, strict=True)]
    within = float(sum(float(c) * s for c, s in zip(counts, spreads, strict=True)))
    if faded is not None:
        levels = np.array(means)
        within += float(faded @ np.square(levels - faded @ levels / faded.sum()))
    return within / float(np.sum(counts)) ** 2


def combine_rounds(masses: Sequence[float], means: Sequence[float], variances: Sequence[float]) -> Mean:
    """sum_r a_r mu_r with its variance, the masses relative to their sum."""
    mass = float(sum(masses))
    value = sum(a * m for a, m in zip(masses, means, strict=True)) / mass
    variance = sum(a * a * v for a, v in zip(masses, variances, strict=True)) / mass**2
    return Mean(float(value), float(variance), mass)


def event_mean(rounds: Sequence[RoundDraws], event: Event = harmful, *, corrected: bool) -> Mean:
    """Probability of ``event`` under the target, with its variance. Needs one round with draws at least."""
    k_all = range(len(rounds[0].counts))
    rows = [np.flatnonzero(event(r)) for r in rounds]
    edges = np.cumsum([0, *map(len, rows)])
    if edges[-1] == 0:
        return Mean(0.0, 0.0, float(sum(r.mass for r in rounds)))
    log_q = np.concatenate([r.log_q[i] for r, i in zip(rounds, rows, strict=True)])
    component = np.concatenate([r.component[i] for r, i in zip(rounds, rows, strict=True)])
    factor = (
        np.exp(np.concatenate([own_correction(r, i) for r, i in zip(rounds, rows, strict=True)]))
        if corrected
        else None
    )
    members = [np.flatnonzero(component == k) for k in k_all]
    available = np.sum([r.counts for r in rounds], axis=0).tolist()
    means, variances = [], []
    for r, round_ in enumerate(rounds):
        expected = round_.expected
        w = np.exp(mixture_log_weights(log_q, expected))
        if factor is not None:
            w *= factor
        own, ours = w[edges[r] : edges[r + 1]], component[edges[r] : edges[r + 1]]
        totals = [float(np.add.reduce(np.sort(own[ours == k]))) for k in k_all]
        groups = [np.sort(w[i]) for i in members]
        means.append(sum(totals) / float(expected.sum()))
        variances.append(round_variance(groups, available, expected, round_.faded))
    return combine_rounds([r.mass for r in rounds], means, variances)


def ratio_means(rounds: Sequence[RoundDraws], *, corrected: bool) -> tuple[Mean | None, ...]:
    """[K] means of q_k/q_beta over all draws, the first being the mean weight, with their variances.

    Each is one if log-probabilities and samplers agree (Owen & Zhou 2000). None for a component that never
    drew: nothing holds its ratio down, so its mean says little. Every draw counts here, so each round's
    variance comes from its own draws; a round in which a component has no draws, or has faded, is left out for it.
    """
    k_all = range(len(rounds[0].counts))
    rows: list[list[tuple[float, float, float]]] = [[] for _ in k_all]
    for round_ in rounds:
        stratum, sizes = round_.strata
        ratios = density_ratios(round_.log_q, round_.expected)
        if corrected:
            ratios = ratios * np.exp(own_correction(round_))[:, None]
        ordered = [np.sort(np.ascontiguousarray(ratios[stratum == j].T), axis=1) for j in k_all]
        fixed, size = round_.fixed, int(sizes.sum())
        means = sum(np.add.reduce(o, axis=1) for o in ordered) / size
        variances = _all_variances(ordered, sizes)
        for k in k_all:
            if k == 0 or fixed[k]:
                rows[k].append((round_.mass, float(means[k]), float(variances[k])))
    return tuple(combine_rounds(*map(list, zip(*r, strict=True))) if r else None for r in rows)


def _all_variances(ordered: Sequence[FloatArray], sizes: IntArray) -> FloatArray:
    """[K] ``round_variance`` of K columns whose values are all there: ``ordered`` [K] by stratum, each [K, n_j]."""
    listed = sizes.tolist()
    if 1 in listed:
        return np.array([round_variance([o[k] for o in ordered], listed, sizes) for k in range(len(ordered))])
    within = np.zeros(len(ordered))
    for o, n in zip(ordered, listed, strict=True):
        if n:
            away = o - (np.add.reduce(o, axis=1) / n)[:, None]
            within += n * (np.add.reduce(away * away, axis=1) / (n - 1))
    return within / float(sizes.sum()) ** 2


def weight_mean(rounds: Sequence[RoundDraws], *, corrected: bool) -> Mean:
    """Mean weight of all draws, with its variance: one if log-probabilities and samplers agree."""
    mean = ratio_means(rounds, corrected=corrected)[0]
    assert mean is not None
    return mean


class Contributions(NamedTuple):
    """The hits that the target can produce, as parts of the estimate.

    ``part`` [h] sums to the estimate; ``log_w`` [h] with ``log_correction`` [h] in it; ``component`` [h];
    ``log_q`` [h, K]. Rows are in an order that does not depend on the order of arrival.
    """

    part: FloatArray
    log_w: FloatArray
    log_correction: FloatArray
    component: IntArray
    log_q: FloatArray

    def take(self, rows: IntArray) -> Contributions:
        """The same for some of the hits, in this order."""
        return Contributions(
            self.part[rows],
            self.log_w[rows],
            self.log_correction[rows],
            self.component[rows],
            self.log_q[rows],
        )


def contributions(rounds: Sequence[RoundDraws], event: Event = harmful, *, corrected: bool) -> Contributions:
    """What each hit adds to the estimate: a_r w / (n_r sum a)."""
    mass = sum(r.mass for r in rounds)
    rows: list[Contributions] = []
    for round_ in rounds:
        chosen = np.flatnonzero(event(round_) & np.isfinite(round_.log_q[:, 0]))
        if len(chosen) == 0:
            continue
        correction = own_correction(round_, chosen) if corrected else np.zeros(len(chosen))
        expected, log_q = round_.expected, round_.log_q[chosen]
        log_w = mixture_log_weights(log_q, expected) + correction
        part = np.exp(log_w) * (round_.mass / (mass * float(expected.sum())))
        component = np.asarray(round_.component, dtype=np.int64)[chosen]
        rows.append(Contributions(part, log_w, correction, component, log_q))
    if not rows:
        none = np.empty(0)
        return Contributions(none, none, none, np.empty(0, np.int64), np.empty((0, len(rounds[0].counts))))
    joined = Contributions(*(np.concatenate(column) for column in zip(*rows, strict=True)))
    if len(joined.part) < 2:
        return joined
    order = np.lexsort(
        (*joined.log_q.T[::-1], joined.component, joined.log_correction, joined.log_w, joined.part)
    )
    return joined.take(order)


def variance_per_draw(rounds: Sequence[RoundDraws], shares: FloatArray, *, corrected: bool) -> float:
    """Forecast of n Var(mean of w h) for n further draws spread over the components by ``shares`` [K].

    With w' the weight under those shares, n Var = E_p[w' h] - sum_k beta_k (E_p[(q_k/q_beta) h])^2; both
    expectations under the target are estimated from the hits that are there, whoever drew them. 0 without
    hits; inf where a hit is out of reach of every component with a share.
    """
    return variance_of(contributions(rounds, corrected=corrected), shares)


def variance_of(parts: Contributions, shares: FloatArray) -> float:
    """``variance_per_draw`` from the hits of all rounds (``contributions``)."""
    if len(parts.part) == 0:
        return 0.0
    log_w = mixture_log_weights(parts.log_q, shares)
    if not np.isfinite(log_w).all():
        return float("inf")
    beta = np.asarray(shares, dtype=np.float64) / np.sum(shares)
    # A hit's own correction enters the second moment once more than it enters the mean.
    second = float((parts.part * np.exp(log_w + parts.log_correction)).sum())
    log_mix = parts.log_q[:, 0] - log_w
    within = parts.part @ np.exp(parts.log_q - log_mix[:, None])
    return max(second - float(beta @ np.square(within)), 0.0)
