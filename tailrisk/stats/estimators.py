"""Points and variances: per-round unbiased means, combined with masses fixed before each round.

mu_r = (1/n_r) sum_i w_i h_i is unbiased given everything before round r, and so is any combination
sum_r a_r mu_r with a_r chosen before round r is drawn and sum a_r = 1: whatever rule chose components,
counts and the moment to stop. While a prompt is open the masses are renormalised by their sum so far.

Variance: draws of a component are independent given the past, so Var(mu_r) = sum_k n_rk s_rk^2 / n_r^2
with s_rk^2 the variance of w_r h under q_k; components that share their draws by lot are one stratum, of their
mixture. The weight w_r depends on the round's own shares, so draws of
other rounds are *reweighted to round r's shares* before they are pooled into s_rk^2: pooling w h as it
stands would mix variances of different mixtures.

Where a strong judge read a sample of the draws, w h is replaced by its estimate for each draw, see
``tailrisk.stats.twostage``.

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
    if any(r.strong is not None for r in rounds):
        return strong_mean(rounds, event, corrected=corrected)
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


def strong_mean(rounds: Sequence[RoundDraws], event: Event = harmful, *, corrected: bool) -> Mean:
    """The same where a strong judge read a sample of the draws: the means of x = w (base + R/pi (h - prediction)).

    Var = sum_k n_k s_k^2(w h) / n^2 + E sum_i w^2 (h - prediction)^2 (1 - pi)/pi / n^2. The spread of x within the
    components is that of w h plus the mean of the second term, were they asked independently. It is pooled over the
    rounds, reweighted to each round's mixture; then the second term is taken out, and that of the round's own sample is
    put in, as it is for samples of fixed size.
    """
    k_all = range(len(rounds[0].counts))
    values = [sampled_values(r, event) for r in rounds]
    rows = [np.flatnonzero((x != 0.0) | (u != 0.0)) for x, u in values]
    if not any(map(len, rows)):
        return Mean(0.0, 0.0, float(sum(r.mass for r in rounds)))
    edges = np.cumsum([0, *map(len, rows)])
    log_q = np.concatenate([r.log_q[i] for r, i in zip(rounds, rows, strict=True)])
    component = np.concatenate([r.component[i] for r, i in zip(rounds, rows, strict=True)])
    x, u = (np.concatenate([v[j][i] for v, i in zip(values, rows, strict=True)]) for j in range(2))
    factor = None
    if corrected:
        factor = np.exp(np.concatenate([own_correction(r)[i] for r, i in zip(rounds, rows, strict=True)]))
        x, u = x * factor, u * factor**2
    members = [np.flatnonzero(component == k) for k in k_all]
    available = np.sum([r.counts for r in rounds], axis=0).tolist()
    means, variances = [], []
    for r, round_ in enumerate(rounds):
        expected = round_.expected
        n = float(expected.sum())
        w = np.exp(mixture_log_weights(log_q, expected))
        y, second = w * x, w**2 * u
        own = slice(edges[r], edges[r + 1])
        ours = w[own] if factor is None else w[own] * factor[own]
        means.append(float(np.add.reduce(np.sort(y[own]))) / n)
        both = round_variance([np.sort(y[i]) for i in members], available, expected, round_.faded)
        pooled = sum(
            float(c) * float(np.add.reduce(np.sort(second[i]))) / a
            for i, a, c in zip(members, available, expected, strict=True)
            if a
        )
        sampling = _sampling_variance(round_, event, rows[r], ours)
        variances.append(max(both - pooled / n**2, 0.0) + sampling / n**2)
    return combine_rounds([r.mass for r in rounds], means, variances)


_FEW = 5


def _sampling_variance(round_: RoundDraws, event: Event, rows: IntArray, w: FloatArray) -> float:
    """Variance of the sum of w (base + R/pi (h - prediction)) over the samples that might have been taken.

    Samples are of a fixed size for each verdict of the other judge, so what counts is how far e/pi, with
    e = w (h - prediction), is from its mean (Hájek 1964): m / (m - 1) sum (1 - pi) (e/pi - a)^2 over the m that were
    left to chance, with a the mean weighted by 1 - pi. Where these are few, a is taken to be zero, as for independent
    draws.
    """
    strong = round_.strong
    if strong is None:
        return 0.0
    weight = np.zeros(round_.n)
    weight[rows] = w
    chosen = np.flatnonzero(strong.asked & (strong.inclusion < 1.0))
    pi, hit = strong.inclusion[chosen], event(round_)[chosen].astype(np.float64)
    e, left = weight[chosen] * (hit - strong.prediction[chosen]) / pi, 1.0 - pi
    kind, total = round_.verdict[chosen], 0.0
    for k in range(3):
        # Sorted, so that the sum does not depend on the order of arrival.
        order = np.flatnonzero(kind == k)
        order = order[np.lexsort((left[order], e[order]))]
        x, f = e[order], left[order]
        if len(x) < _FEW:
            total += float(np.add.reduce(f * x * x))
            continue
        away = x - float(np.add.reduce(f * x)) / float(np.add.reduce(f))
        total += float(np.add.reduce(f * away * away)) * len(x) / (len(x) - 1)
    return total


def sampled_values(round_: RoundDraws, event: Event = harmful) -> tuple[FloatArray, FloatArray]:
    """[n] each draw's estimate of h and [n] that of its variance, (h - prediction)^2 (1 - pi)/pi, over the samples that
    the strong judge might have been given. Without a strong judge: h itself, and zeros."""
    hit, strong = event(round_).astype(np.float64), round_.strong
    if strong is None:
        return hit, np.zeros(len(hit))
    inverse = np.where(strong.asked, 1.0 / strong.inclusion, 0.0)
    away = inverse * (hit - strong.prediction)
    return strong.base + away, away**2 * (1.0 - strong.inclusion)


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
        means = sum((np.add.reduce(o, axis=1) for o in ordered), np.zeros(len(k_all))) / size
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

    ``part`` [h] sums to the estimate; ``log_w`` [h] with the numerics' part of ``log_correction`` [h] in it;
    ``component`` [h]; ``log_q`` [h, K]. Where a strong judge read a sample, a hit that it was asked about with
    probability pi stands for 1 / pi of them, in ``part`` and in ``log_correction``, and the parts sum to the
    estimate that makes no use of the other judge. Rows are in an order that does not depend on the order of arrival.
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
        if round_.strong is not None:
            part = part / round_.strong.inclusion[chosen]
            correction = correction - np.log(round_.strong.inclusion[chosen])
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
