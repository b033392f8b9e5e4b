"""What a judge is worth, from answers that people have labelled: rates with exact intervals, and what they resolve.

Answers are counted by their label (harm, safe) and by the verdict (harm, safe, undetermined). Sensitivity is the share
of harmful answers that are judged harm, the false-positive rate the share of safe ones that are, both among the
answers that the judge settles: *given the label, whether an answer is settled is taken to say nothing of what the
verdict would be*. An audit counts the undetermined as safe in lower ends and as harm in upper ends, with which these
rates give valid ends however often the judge abstains (``tailrisk.stats.judgeerror``).

Intervals of shares are those of Clopper and Pearson (1934): exact, for any number of rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaincinv

from tailrisk.records import FloatArray, Verdict

MOST_THRESHOLDS = 40
BINS = 20


class Share(NamedTuple):
    """``value`` is NaN, and the interval [0, 1], of no rows."""

    value: float
    low: float
    high: float


def clopper_pearson(k: int, n: int, alpha: float) -> tuple[float, float]:
    """Exact interval of a probability from k successes in n trials: each end fails with alpha / 2 at most."""
    if not 0 <= k <= n:
        raise ValueError(f"{k} of {n}")
    low = 0.0 if k == 0 else float(betaincinv(k, n - k + 1, alpha / 2))
    high = 1.0 if k == n else float(betaincinv(k + 1, n - k, 1 - alpha / 2))
    return low, high


def share(k: int, n: int, alpha: float) -> Share:
    return Share(k / n if n else math.nan, *clopper_pearson(k, n, alpha))


class Confusion(NamedTuple):
    """Labelled answers by label and verdict; ``u_harm`` and ``u_safe`` are the undetermined among harmful and safe."""

    tp: int
    fn: int
    u_harm: int
    fp: int
    tn: int
    u_safe: int

    @property
    def harm(self) -> int:
        return self.tp + self.fn + self.u_harm

    @property
    def safe(self) -> int:
        return self.fp + self.tn + self.u_safe

    @property
    def settled(self) -> int:
        return self.tp + self.fn + self.fp + self.tn

    def as_verdict(self, harm: bool) -> Confusion:
        """The undetermined counted as harm, or as safe."""
        if harm:
            return Confusion(self.tp + self.u_harm, self.fn, 0, self.fp + self.u_safe, self.tn, 0)
        return Confusion(self.tp, self.fn + self.u_harm, 0, self.fp, self.tn + self.u_safe, 0)


def confusion(labels: ArrayLike, verdicts: ArrayLike) -> Confusion:
    """``labels`` [n] True for harm; ``verdicts`` [n] of ``Verdict``."""
    harm, seen = np.asarray(labels, dtype=np.bool_), np.asarray(verdicts)

    def count(label: bool, verdict: Verdict) -> int:
        return int(np.count_nonzero((harm == label) & (seen == int(verdict))))

    of = (Verdict.HARM, Verdict.SAFE, Verdict.UNDETERMINED)
    return Confusion(*(count(True, v) for v in of), *(count(False, v) for v in of))


class Rates(NamedTuple):
    """Of a judge, against labels. ``agreement`` and ``kappa`` are at the labelled set's own share of harm."""

    sensitivity: Share
    specificity: Share
    false_positive: Share
    agreement: Share
    kappa: Share


def rates(c: Confusion, alpha: float) -> Rates:
    """Among the settled answers, each with an interval that holds with probability 1 - alpha."""
    positive = share(c.fp, c.fp + c.tn, alpha)
    return Rates(
        sensitivity=share(c.tp, c.tp + c.fn, alpha),
        specificity=Share(1 - positive.value, 1 - positive.high, 1 - positive.low),
        false_positive=positive,
        agreement=share(c.tp + c.tn, c.settled, alpha),
        kappa=_kappa(c, alpha),
    )


def kappa_of(prevalence: float, sensitivity: float, specificity: float) -> float:
    """Cohen's (1960) kappa of a judge and the labels; NaN where both say the same of every answer.

    With pi = prevalence and q the share judged harm it is 2 pi (1 - pi) (Se + Sp - 1) / (pi (1 - q) + q (1 - pi)),
    which grows with Se and with Sp.
    """
    judged = prevalence * sensitivity + (1 - prevalence) * (1 - specificity)
    apart = prevalence * (1 - judged) + judged * (1 - prevalence)
    if apart <= 0:
        return math.nan
    return 2 * prevalence * (1 - prevalence) * (sensitivity + specificity - 1) / apart


def _kappa(c: Confusion, alpha: float) -> Share:
    """The interval is that of Se and Sp, at half of alpha each, carried over: kappa grows with both."""
    positives, negatives = c.tp + c.fn, c.fp + c.tn
    if not positives or not negatives:
        return Share(math.nan, -1.0, 1.0)
    prevalence = positives / c.settled
    se, sp = clopper_pearson(c.tp, positives, alpha / 2), clopper_pearson(c.tn, negatives, alpha / 2)
    return Share(
        kappa_of(prevalence, c.tp / positives, c.tn / negatives),
        kappa_of(prevalence, se[0], sp[0]),
        kappa_of(prevalence, se[1], sp[1]),
    )


def resolution(false_positive_high: float, sensitivity_low: float) -> float:
    """The smallest probability that a judge resolves: F / (S + F) with the upper bound F of its false-positive rate
    and the lower bound S of its sensitivity. Below it more than half of what the judge flags could be false, because
    S p < F (1 - p). 1 for a judge of which nothing is known."""
    total = false_positive_high + sensitivity_low
    return false_positive_high / total if total > 0 else 1.0


class Point(NamedTuple):
    """The rates if answers with a score of at least ``threshold`` were harm."""

    threshold: float
    sensitivity: Share
    false_positive: Share


def threshold_curve(labels: ArrayLike, scores: ArrayLike, alpha: float) -> list[Point]:
    """From the answers that have a score; thresholds are scores that occur, ``MOST_THRESHOLDS`` at most."""
    harm, score = np.asarray(labels, dtype=np.bool_), np.asarray(scores, dtype=np.float64)
    there = np.isfinite(score)
    harm, score = harm[there], score[there]
    values = np.unique(score)
    if len(values) > MOST_THRESHOLDS:
        places = np.linspace(0, len(values) - 1, MOST_THRESHOLDS).round().astype(np.int64)
        values = values[places]
    positives = np.sort(score[harm])
    negatives = np.sort(score[~harm])
    tp = len(positives) - np.searchsorted(positives, values, side="left")
    fp = len(negatives) - np.searchsorted(negatives, values, side="left")
    return [
        Point(float(t), share(int(a), len(positives), alpha), share(int(b), len(negatives), alpha))
        for t, a, b in zip(values, tp, fp, strict=True)
    ]


class Histogram(NamedTuple):
    """Scores by label: ``edges`` [b + 1], counts [b] of harmful and of safe answers; ``missing``: without a score."""

    edges: FloatArray
    harm: NDArray[np.int64]
    safe: NDArray[np.int64]
    missing: int


def score_histogram(labels: ArrayLike, scores: ArrayLike) -> Histogram:
    harm, score = np.asarray(labels, dtype=np.bool_), np.asarray(scores, dtype=np.float64)
    there = np.isfinite(score)
    low, high = (float(score[there].min()), float(score[there].max())) if there.any() else (0.0, 1.0)
    if low >= 0.0 and high <= 1.0:
        low, high = 0.0, 1.0
    edges = np.linspace(low, high if high > low else low + 1.0, BINS + 1)
    counts = [np.histogram(score[there & which], bins=edges)[0] for which in (harm, ~harm)]
    return Histogram(edges, counts[0], counts[1], int(np.count_nonzero(~there)))


def agreement_of(first: Sequence[int] | NDArray[np.int8], second: ArrayLike) -> NDArray[np.int64]:
    """[3, 3] counts of two judges' verdicts of the same answers, by ``Verdict`` of the first and of the second."""
    pairs = 3 * np.asarray(first, dtype=np.int64) + np.asarray(second, dtype=np.int64)
    return np.bincount(pairs, minlength=9).reshape(3, 3)
