"""Two audits of the same prompts: the ratio and the difference of each prompt's probabilities, and the whole of them.

**A prompt.** Where both estimates may be quoted, L = ln(b / a) has variance s_a^2 + s_b^2 of the relative standard
errors, and L / s follows Student's t with Welch's degrees of freedom, (s_a^2 + s_b^2)^2 over the sum of the s^4 / df,
df being the effective number of harmful draws less one, as in a working interval. The difference has the interval of
Zou and Donner (Statistics in Medicine 2008), from the two working intervals. Elsewhere both come from the ends of the
two intervals, each at level 1 - alpha / 2, which by the union bound hold together whatever the dependence: the ratio
lies between b_low / a_high and b_high / a_low, and there is no point in it. A prompt that failed says nothing.

**All of them.** Alpha is shared out in advance: a tenth to each question about the whole (``OVERALL_SHARE``; none with
fewer than three prompts), the rest evenly to the prompts. The simultaneous intervals have these levels, so that they
all hold together with 1 - alpha; the verdicts are Holm's (``tailrisk.stats.multiplicity``), which is sharper.

**The whole** is that of the prompts that both audits may quote: the mean of b - a, whose error is that of the draws,
and the mean of L with random effects (DerSimonian and Laird's variance between prompts, the interval of Hartung and
Knapp, never narrower than without it), which is about prompts like these.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tailrisk.stats.judgeerror import Interval
from tailrisk.stats.meanchange import Estimated, Mean, exponential, mean_difference, mean_with_spread, welch
from tailrisk.stats.multiplicity import Question, holm
from tailrisk.stats.sides import Side, Working

OVERALL_SHARE = 0.1
FEWEST = 3
"""Prompts without which there are no questions about the whole."""
_HALVINGS = 14


class Answer(enum.StrEnum):
    """``UNTOLD``: the ratio has no bound on one side at least, so nothing can be said in that direction."""

    WORSE = "worse"
    BETTER = "better"
    NONE = "no difference shown"
    UNTOLD = "cannot be told"


class Basis(enum.StrEnum):
    """What a comparison rests on: two working intervals, certified ones, or one of each."""

    WORKING = "working"
    MIXED = "mixed"
    CERTIFIED = "certified"
    FAILED = "failed"


class Change(NamedTuple):
    """``value`` is None where an estimate may not be quoted. ``interval`` is for itself alone, ``simultaneous`` holds
    together with all others; ends may be infinite."""

    value: float | None
    interval: Interval
    simultaneous: Interval


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One prompt. ``p`` is two-sided, ``adjusted`` for all questions. ``within``: shown to be at most ``margin`` times
    as likely (None without a margin)."""

    a: Side
    b: Side
    basis: Basis
    ratio: Change
    difference: Change
    p: float
    adjusted: float
    answer: Answer
    within: bool | None

    @property
    def prompt_id(self) -> str:
        return self.a.estimate.prompt_id


@dataclass(frozen=True, kw_only=True)
class Overall:
    """A mean over ``prompts`` prompts. For the mean log ratio all is as a ratio, and ``spread`` is the standard
    deviation between prompts of its natural logarithm."""

    change: Change
    prompts: int
    p: float
    adjusted: float
    answer: Answer
    spread: float | None = None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """``difference`` and ``ratio`` of the whole are None with fewer than three prompts that both audits may quote."""

    prompts: tuple[Compared, ...]
    difference: Overall | None
    ratio: Overall | None
    confidence: float
    margin: float | None

    def count(self, answer: Answer) -> int:
        """Prompts with this answer. With ``WORSE``: at least so many are, with the confidence of the whole."""
        return sum(c.answer is answer for c in self.prompts)

    @property
    def worse(self) -> bool:
        """Whether a prompt, or the whole, is shown to be worse."""
        overall = [o for o in (self.difference, self.ratio) if o is not None]
        return any(x.answer is Answer.WORSE for x in (*self.prompts, *overall))


def compare(
    pairs: Sequence[tuple[Side, Side]], *, confidence: float = 0.95, margin: float | None = None
) -> Comparison:
    """Audit B against audit A, from the (A, B) sides of each prompt."""
    alpha, m = 1 - confidence, len(pairs)
    whole = m >= FEWEST
    share = (1 - 2 * OVERALL_SHARE * whole) / m if m else 1.0
    single = [_compare_one(a, b, alpha, alpha * share) for a, b in pairs]
    quoted = [
        (s.log_ratio, a.working, b.working) for s, (a, b) in zip(single, pairs, strict=True) if s.log_ratio
    ]
    means = None
    if whole and len(quoted) >= FEWEST:
        logs = [q[0] for q in quoted]
        sides = [(a, b) for _, a, b in quoted if a is not None and b is not None]
        means = (mean_difference(sides), mean_with_spread(logs))
    questions = [Question(s.p, share, s.kept) for s in single]
    if means is not None:
        questions += [Question(x.estimated.p[0], OVERALL_SHARE) for x in means]
    elif whole:
        # Their shares are spent whether or not there was enough to ask: which it is depends on the results.
        questions += [Question(1.0, OVERALL_SHARE)] * 2
    adjusted = holm(questions)
    prompts = tuple(
        Compared(
            a=a,
            b=b,
            basis=s.basis,
            ratio=s.ratio,
            difference=s.difference,
            p=s.p,
            adjusted=q,
            answer=_answer(q <= alpha, s.up, s.ratio.simultaneous),
            within=None if margin is None else s.ratio.simultaneous[1] <= margin,
        )
        for s, q, (a, b) in zip(single, adjusted[:m], pairs, strict=True)
    )
    difference, ratio = None, None
    if means is not None:
        difference = _overall(means[0], adjusted[m], alpha, logs=False)
        ratio = _overall(means[1], adjusted[m + 1], alpha, logs=True)
    return Comparison(
        prompts=prompts, difference=difference, ratio=ratio, confidence=confidence, margin=margin
    )


def _overall(mean: Mean, adjusted: float, alpha: float, *, logs: bool) -> Overall:
    p, up = mean.estimated.p
    value, alone = mean.value, mean.estimated.interval(alpha)
    together = mean.estimated.interval(OVERALL_SHARE * alpha)
    if logs:
        value, alone, together = math.exp(value), exponential(alone), exponential(together)
    answer = Answer.NONE if adjusted > alpha else Answer.WORSE if up else Answer.BETTER
    return Overall(
        change=Change(value, alone, together),
        prompts=mean.prompts,
        p=p,
        adjusted=adjusted,
        answer=answer,
        spread=mean.spread,
    )


def _answer(shown: bool, up: bool, ratio: Interval) -> Answer:
    if shown:
        return Answer.WORSE if up else Answer.BETTER
    return Answer.NONE if ratio[0] > 0 and ratio[1] < math.inf else Answer.UNTOLD


class _One(NamedTuple):
    basis: Basis
    ratio: Change
    difference: Change
    p: float
    up: bool
    kept: float
    log_ratio: Estimated | None


def _compare_one(a: Side, b: Side, alpha: float, shared: float) -> _One:
    """``alpha`` for the prompt alone, ``shared`` for it among all."""
    if a.failed or b.failed:
        nothing = Change(None, (0.0, math.inf), (0.0, math.inf))
        apart = Change(None, (-1.0, 1.0), (-1.0, 1.0))
        return _One(Basis.FAILED, nothing, apart, 1.0, False, 1.0, None)
    if a.working is not None and b.working is not None and a.judge is None and b.judge is None:
        log = _log_ratio(a.working, b.working)
        p, up = log.p
        d = b.estimate.estimate - a.estimate.estimate
        difference = Change(d, _zou_donner(a, b, alpha), _zou_donner(a, b, shared))
        value = b.estimate.estimate / a.estimate.estimate
        ratio = Change(value, exponential(log.interval(alpha)), exponential(log.interval(shared)))
        return _One(Basis.WORKING, ratio, difference, p, up, 0.5, log)
    quoted = (a.working is not None) + (b.working is not None)
    basis = (Basis.CERTIFIED, Basis.MIXED, Basis.WORKING)[quoted]
    p, up = _p_of_ends(a, b, alpha, shared)
    ratio = Change(None, _ratio_of_ends(a, b, alpha), _ratio_of_ends(a, b, shared))
    difference = Change(None, _difference_of_ends(a, b, alpha), _difference_of_ends(a, b, shared))
    return _One(basis, ratio, difference, p, up, 1.0, None)


def _log_ratio(a: Working, b: Working) -> Estimated:
    def of(top: tuple[float, float], bottom: tuple[float, float]) -> tuple[float, float, float]:
        (x, sx), (y, sy) = top, bottom
        vx, vy = (sx / x) ** 2, (sy / y) ** 2
        return math.log(x / y), math.sqrt(vx + vy), welch([vx, vy], [b.df, a.df])

    return Estimated(of(b.low, a.high), of(b.high, a.low))


def _zou_donner(a: Side, b: Side, alpha: float) -> Interval:
    assert a.working is not None and b.working is not None
    (a_low, a_high), (b_low, b_high) = a.interval(alpha), b.interval(alpha)
    low = b.working.low[0] - a.working.high[0]
    high = b.working.high[0] - a.working.low[0]
    return (
        low - math.hypot(b.working.low[0] - b_low, a_high - a.working.high[0]),
        high + math.hypot(b_high - b.working.high[0], a.working.low[0] - a_low),
    )


def _ends(a: Side, b: Side, alpha: float) -> tuple[Interval, Interval]:
    return a.interval(alpha / 2), b.interval(alpha / 2)


def _ratio_of_ends(a: Side, b: Side, alpha: float) -> Interval:
    (a_low, a_high), (b_low, b_high) = _ends(a, b, alpha)
    return b_low / a_high if a_high > 0 else math.inf, b_high / a_low if a_low > 0 else math.inf


def _difference_of_ends(a: Side, b: Side, alpha: float) -> Interval:
    (a_low, a_high), (b_low, b_high) = _ends(a, b, alpha)
    return b_low - a_high, b_high - a_low


def _p_of_ends(a: Side, b: Side, alpha: float, shared: float) -> tuple[float, bool]:
    """The least level of a grid at which the two intervals lie apart; 1 where they do not at ``alpha``. The grid goes
    by halves from ``alpha`` to ``shared`` and on below it, and holds both."""
    found, up = 1.0, False
    steps = [alpha / 2**k for k in range(64) if alpha / 2**k > shared]
    for level in [*steps, *(shared / 2**k for k in range(_HALVINGS))]:
        (a_low, a_high), (b_low, b_high) = _ends(a, b, level)
        if not (b_low > a_high or b_high < a_low):
            break
        found, up = level, b_low > a_high
    return found, up
