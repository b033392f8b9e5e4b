"""How much the members of a group differ: prompts that ask for the same in other words.

What is known of each member is its log estimate y_i with a standard error s_i (diagnostics passed), or certified ends
only. Members that failed or are unreliable are left out of everything that rests on estimates.

*Spread.* The members' log probabilities x_i have a variance tau^2 over the group, and y_i = x_i + noise. The estimate
is that of moments with equal weights (Hedges and Olkin, 1985): the sample variance S^2 of the y_i less the mean of the
s_i^2. Unlike weighted ones (DerSimonian and Laird, 1986) it stays unbiased when s_i goes with y_i, as it does here: a
member whose heavy hits were not met has both too low. The interval inverts F = S^2 / (tau^2 + mean s_i^2), which has
nearly an F law whose degrees of freedom are those of Satterthwaite (1946), with the s_i^2 known from few hits each.
At tau = 0 this is the test of no spread.

*Worst over base.* Of many members one is the highest by chance. With simultaneous intervals (Bonferroni) for all log
ratios to the base, the largest true ratio lies between the largest lower and the largest upper end. The estimate is
that of the member which is highest after all were drawn in towards the group's mean by their noise (empirical Bayes).
Where the base has no estimate, certified ends may still show that a member is at least so many times as likely.

*Kinds.* Per kind the mean over groups of the log ratio to the group's base: random effects, the interval of Hartung and
Knapp (2001) never narrower than with the known noise, Holm's step-down over kinds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.special import fdtrc, fdtri, polygamma, stdtr, stdtrit

from tailrisk.records import FloatArray, Status
from tailrisk.stats import multiplicity
from tailrisk.stats.estimate import Estimate
from tailrisk.stats.meanchange import spread_mean
from tailrisk.stats.multiplicity import Question

Interval = tuple[float, float]
State = Literal["measured", "bounded", "left out"]
Verdict = Literal["sensitive", "not shown", "unknown"]


class Member(NamedTuple):
    """``kind`` None: the group's base. ``log_p``, its standard error ``se`` and what that is known to, ``df``, are NaN
    unless the member is ``measured``; ``bounded``: no hits, so its certified ends alone count."""

    id: str
    kind: str | None
    state: State
    log_p: float = math.nan
    se: float = math.nan
    df: float = math.nan


class Spread(NamedTuple):
    """``variance`` of log p over the measured members, noise taken out, below zero where they differ by less than
    their noise; ``sd`` its root, 0 then; [``low``, ``high``] of ``sd``; ``p_value`` of no spread; ``noise`` the root
    mean square standard error. None with fewer than two measured members."""

    sd: float
    variance: float
    low: float
    high: float
    p_value: float
    noise: float


class Worst(NamedTuple):
    """``ratio`` of the worst member to the base with its interval. ``basis``: "working", or "certified", when ``low``
    alone is known and ``ratio`` and ``high`` are None; "none": it cannot be told."""

    id: str | None
    kind: str | None
    ratio: float | None
    low: float | None
    high: float | None
    basis: Literal["working", "certified", "none"]


class Group(NamedTuple):
    """``certified_ratio``: the highest member is certainly so many times as likely as the lowest (None: not above 1, or
    not asked, as the spread is shown already)."""

    name: str
    members: tuple[Member, ...]
    spread: Spread | None
    worst: Worst
    verdict: Verdict
    certified_ratio: float | None

    def count(self, state: State) -> int:
        return sum(m.state == state for m in self.members)


class KindEffect(NamedTuple):
    """``ratio``: exp of the mean log ratio to the base over ``groups``; ``between`` its standard deviation over
    groups. ``left_out``: groups in which the kind or the base is not measured. Interval and p-values are None with one
    group; ``adjusted`` for the number of kinds (Holm)."""

    kind: str
    groups: int
    left_out: int
    ratio: float
    low: float | None
    high: float | None
    between: float | None
    p_value: float | None
    adjusted: float | None


def member(estimate: Estimate) -> Member:
    """A group's member from its estimate. The standard error is never below what the heaviest hit would change."""
    kind, id_ = estimate.perturbation, estimate.prompt_id
    if estimate.status is Status.BOUND_ONLY:
        return Member(id_, kind, "bounded")
    if estimate.status not in (Status.OK, Status.BUDGET_EXHAUSTED) or not estimate.relative_error:
        return Member(id_, kind, "left out")
    relative = max(estimate.relative_error, estimate.max_weight_share)
    return Member(
        id_, kind, "measured", math.log(estimate.estimate), log_error(relative), max(estimate.ess - 1, 1)
    )


def base_of(members: Sequence[Member]) -> Member | None:
    """The one member that is no perturbation; None where there is none, or more than one."""
    bases = [m for m in members if m.kind is None]
    return bases[0] if len(bases) == 1 else None


def log_error(relative: float) -> float:
    """Standard error of the logarithm of a mean of few hits, from its relative one: as that of a gamma variable."""
    return math.sqrt(float(polygamma(1, 1 / relative**2)))


def spread(members: Sequence[Member], *, confidence: float) -> Spread | None:
    """Of the measured ones among ``members``."""
    y, v, df = _measured(members)
    if len(y) < 2:
        return None
    k, noise, seen = len(y), float(v.mean()), float(y.var(ddof=1))
    half = (1 - confidence) / 2

    def freedom(t: float) -> tuple[float, float]:
        """Of S^2 and of what it is compared with, where the members' variance is ``t``."""
        total = t + v
        trace = float((total**2).sum()) * (1 - 2 / k) + float(total.sum()) ** 2 / k**2
        above = (k - 1) ** 2 * float(total.mean()) ** 2 / trace
        below = k**2 * (t + noise) ** 2 / float((v**2 / df).sum())
        return above, below

    def excess(log_t: float, part: float, seen: float) -> float:
        t = math.exp(log_t)
        return seen / (t + noise) - float(fdtri(*freedom(t), part))

    def end(part: float, seen: float) -> float:
        """The variance at which ``seen`` is this quantile; 0 where it is below it without any."""
        if seen / noise <= float(fdtri(*freedom(0.0), part)):
            return 0.0
        first, last = math.log(noise * 1e-9), math.log(noise + seen)
        while excess(last, part, seen) > 0:
            last += 2.0
        if excess(first, part, seen) <= 0:
            return 0.0
        found = brentq(excess, first, last, args=(part, seen), xtol=1e-6)
        return math.exp(float(found))  # type: ignore[arg-type]

    # Differences below the noise say that chance made them small, not that there can be no spread.
    low, high = end(1 - half, seen), end(half, max(seen, noise))
    return Spread(
        sd=math.sqrt(max(seen - noise, 0.0)),
        variance=seen - noise,
        low=math.sqrt(low),
        high=math.sqrt(high),
        p_value=float(fdtrc(*freedom(0.0), seen / noise)),
        noise=math.sqrt(noise),
    )


def group(
    name: str, members: Sequence[Member], *, confidence: float, certified: Callable[[str], Interval]
) -> Group:
    """What is known of a group. ``certified`` gives a member's certified interval at the level that makes those of the
    whole group hold together; it is asked only where estimates do not settle the matter."""
    found = spread(members, confidence=confidence)
    base = base_of(members)
    others = [m for m in members if m.kind is not None]
    worst = _worst(base, others, found, confidence)
    ratio = None
    shown = found is not None and found.low > 0
    if not shown or worst.basis == "none":
        ends = {m.id: certified(m.id) for m in members}
        if not shown:
            ratio = _certified_ratio(list(ends.values()))
        if worst.basis == "none" and base is not None:
            worst = _certainly_worse(base, others, ends)
    verdict: Verdict = "unknown" if found is None else "not shown"
    if shown or ratio is not None:
        verdict = "sensitive"
    return Group(name, tuple(members), found, worst, verdict, ratio)


def kind_effects(groups: Sequence[Sequence[Member]], *, confidence: float) -> list[KindEffect]:
    """One a kind, the largest ratio first; members of one kind in a group count as their mean."""
    kinds = dict.fromkeys(m.kind for members in groups for m in members if m.kind is not None)
    effects = [_effect(kind, groups, confidence) for kind in kinds]
    known = [e for e in effects if e is not None]
    adjusted = holm([e.p_value for e in known])
    return sorted(
        (e._replace(adjusted=p) for e, p in zip(known, adjusted, strict=True)),
        key=lambda e: (-e.ratio, e.kind),
    )


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down adjustment, all with one share; None stays None and does not count."""
    known = iter(multiplicity.holm([Question(p, 1.0, kept=0.0) for p in p_values if p is not None]))
    return [None if p is None else next(known) for p in p_values]


def _measured(members: Sequence[Member]) -> tuple[FloatArray, FloatArray, FloatArray]:
    used = [m for m in members if m.state == "measured"]
    return (
        np.array([m.log_p for m in used]),
        np.array([m.se**2 for m in used]),
        np.array([m.df for m in used]),
    )


def _worst(base: Member | None, others: Sequence[Member], found: Spread | None, confidence: float) -> Worst:
    used = [m for m in others if m.state == "measured"]
    if base is None or base.state != "measured" or not used or found is None:
        return Worst(None, None, None, None, None, "none")
    lows, highs = [], []
    for m in used:
        variance = m.se**2 + base.se**2
        df = variance**2 / (m.se**4 / m.df + base.se**4 / base.df)
        reach = float(stdtrit(df, 1 - (1 - confidence) / (2 * len(used)))) * math.sqrt(variance)
        lows.append(m.log_p - base.log_p - reach)
        highs.append(m.log_p - base.log_p + reach)
    centre = float(np.mean([m.log_p for m in (base, *used)]))

    def drawn_in(m: Member) -> float:
        return centre + (m.log_p - centre) * found.sd**2 / (found.sd**2 + m.se**2)

    highest = max(used, key=drawn_in)
    ratio = math.exp(drawn_in(highest) - drawn_in(base))
    low, high = math.exp(max(lows)), math.exp(max(highs))
    return Worst(highest.id, highest.kind, min(max(ratio, low), high), low, high, "working")


def _certainly_worse(base: Member, others: Sequence[Member], ends: dict[str, Interval]) -> Worst:
    top = ends[base.id][1]
    highest = max(others, key=lambda m: ends[m.id][0], default=None)
    if highest is None or ends[highest.id][0] <= top:
        return Worst(None, None, None, None, None, "none")
    return Worst(highest.id, highest.kind, None, ends[highest.id][0] / top, None, "certified")


def _certified_ratio(ends: Sequence[Interval]) -> float | None:
    highest, lowest = max((low for low, _ in ends), default=0.0), min((high for _, high in ends), default=1.0)
    return highest / lowest if highest > lowest > 0 else None


def _effect(kind: str, groups: Sequence[Sequence[Member]], confidence: float) -> KindEffect | None:
    """None where no group has both the kind and its base measured."""
    ratios, variances, left_out = [], [], 0
    for members in groups:
        those = [m for m in members if m.kind == kind]
        used = [m for m in those if m.state == "measured"]
        base = base_of(members)
        if base is None or base.state != "measured" or not used:
            left_out += bool(those)
            continue
        ratios.append(float(np.mean([m.log_p for m in used])) - base.log_p)
        variances.append(float(np.sum([m.se**2 for m in used])) / len(used) ** 2 + base.se**2)
    n = len(ratios)
    if n == 0:
        return None
    d, v = np.array(ratios), np.array(variances)
    if n == 1:
        return KindEffect(kind, 1, left_out, math.exp(d[0]), None, None, None, None, None)
    between = max(float(d.var(ddof=1) - v.mean()), 0.0)
    mean, error, _ = spread_mean(d, v, between)
    reach = float(stdtrit(n - 1, 0.5 + confidence / 2)) * error
    return KindEffect(
        kind,
        n,
        left_out,
        math.exp(mean),
        math.exp(mean - reach),
        math.exp(mean + reach),
        math.sqrt(between),
        2 * float(stdtr(n - 1, -abs(mean) / error)),
        None,
    )
