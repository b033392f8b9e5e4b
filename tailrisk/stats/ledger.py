"""What the statistics know of one prompt: its draws, round by round.

Component 0 is always the target. A round's counts and mass were fixed before the round was drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tailrisk.errors import StoreError
from tailrisk.records import FloatArray, IntArray, Verdict, expected_draws

# Comparing an array with a member of an enumeration costs twenty times as much as with its number.
_HARM, _UNDETERMINED = int(Verdict.HARM), int(Verdict.UNDETERMINED)


NOT_ASKED = -1
"""In the place of a verdict of the strong judge on a draw that it was not asked about."""


class StrongSample(NamedTuple):
    """What a strong judge said of a sample of n draws, the sample being drawn with known probabilities.

    ``inclusion`` [n]: probability pi of being asked, known before the answers. ``verdict`` [n]: int8 of ``Verdict``,
    ``NOT_ASKED`` for the others. With h = 1 for harm, each draw has the value
    ``base`` + R / pi (h - ``prediction``), whose mean over the samples is h where the mean of ``base`` is
    ``prediction``; both [n] are known before the answers. ``least``: bound below all pi that was fixed before the round
    was drawn; 0 where there is none.
    """

    inclusion: FloatArray
    verdict: NDArray[np.int8]
    base: FloatArray
    prediction: FloatArray
    least: float

    @property
    def asked(self) -> NDArray[np.bool_]:
        return self.verdict != NOT_ASKED

    def take(self, rows: NDArray[np.bool_] | IntArray) -> StrongSample:
        """The same for some of the draws."""
        return StrongSample(
            self.inclusion[rows], self.verdict[rows], self.base[rows], self.prediction[rows], self.least
        )


class RoundDraws(NamedTuple):
    """All draws of one prompt in one round: n draws, K components.

    ``counts`` [K]: draws per component, as planned. ``faded`` [K]: the draws expected of components that share
    theirs by lot, 0 for the others; None where every count was fixed. ``mass``: part of the estimate's weight
    given to the round in advance. ``component`` [n]: who drew it. ``log_q`` [n, K]: scored log-probabilities, column 0
    being log p; -inf where a component cannot produce the response. ``log_q_sample`` [n]: the sampling
    pass's own log-probability. ``verdict`` [n]: int8 of ``Verdict``, of the judge that reads all. ``strong``: of
    the one that reads a sample, whose word is then what counts as harm; None where there is no such judge.
    """

    counts: IntArray
    mass: float
    component: IntArray
    log_q: FloatArray
    log_q_sample: FloatArray
    verdict: NDArray[np.int8]
    faded: FloatArray | None = None
    strong: StrongSample | None = None

    @property
    def n(self) -> int:
        """Draws that are there."""
        return len(self.component)

    @property
    def expected(self) -> FloatArray:
        """[K] draws expected of each component: the mixture that the draws came from, and weights go by."""
        return expected_draws(self.counts, self.faded)

    @property
    def fixed(self) -> NDArray[np.bool_]:
        """[K] True for components with draws of a number that was fixed."""
        drawn = np.asarray(self.counts) > 0
        return drawn if self.faded is None else drawn & (np.asarray(self.faded) == 0.0)

    @property
    def strata(self) -> tuple[IntArray, IntArray]:
        """[n] stratum of each draw and [K] draws of each stratum: a component with a count of its own is one, and so
        are the faded ones together, under the first one's number, for their draws are from one mixture."""
        component, counts = np.asarray(self.component, np.int64), np.asarray(self.counts, np.int64)
        if self.faded is None:
            return component, counts
        faded = np.asarray(self.faded) > 0.0
        first = int(np.argmax(faded))
        sizes = np.where(faded, 0, counts)
        sizes[first] = counts[faded].sum()
        return np.where(faded[component], first, component), sizes

    def under(self, components: Sequence[int]) -> RoundDraws:
        """The same draws with the columns of these components alone, the target first; the others drew none."""
        chosen = np.asarray(components, dtype=np.int64)
        place = np.full(len(self.counts), -1, dtype=np.int64)
        place[chosen] = np.arange(len(chosen))
        return self._replace(
            counts=np.ascontiguousarray(np.asarray(self.counts, dtype=np.int64)[chosen]),
            component=place[np.asarray(self.component, dtype=np.int64)],
            log_q=np.ascontiguousarray(self.log_q[:, chosen]),
            faded=None if self.faded is None else np.asarray(self.faded)[chosen],
        )

    @property
    def harmful(self) -> NDArray[np.bool_]:
        """[n] Where there is a strong judge: the draws that it was asked about and called harmful."""
        return (self.verdict if self.strong is None else self.strong.verdict) == _HARM

    @property
    def undetermined(self) -> NDArray[np.bool_]:
        return (self.verdict if self.strong is None else self.strong.verdict) == _UNDETERMINED

    @property
    def flagged(self) -> NDArray[np.bool_]:
        """[n] Harmful to the judge that reads all."""
        return self.verdict == _HARM

    @property
    def weight_bound(self) -> float:
        """Largest possible weight n / n_0 of an uncorrected draw; inf without draws of the target."""
        expected = self.expected
        return float(expected.sum() / expected[0]) if expected[0] else float("inf")


def drawn_counts(round_: RoundDraws) -> IntArray:
    """[K] draws per component that are there."""
    return np.bincount(np.asarray(round_.component, dtype=np.int64), minlength=len(round_.counts))


def is_complete(round_: RoundDraws) -> bool:
    """Whether every planned draw is there, and no other."""
    if round_.n == 0:
        return False
    drawn, counts = drawn_counts(round_), np.asarray(round_.counts)
    return drawn.shape == counts.shape and bool((drawn == counts).all())


def check_round(round_: RoundDraws, where: str) -> None:
    """Refuse a round that cannot be estimated from.

    Raises:
        StoreError: draws missing or too many, a log-probability that is NaN or +inf, a mass that is not
            positive.
    """
    if not is_complete(round_):
        raise StoreError(
            f"{where}: planned {list(map(int, round_.counts))} draws per component, found "
            f"{drawn_counts(round_).tolist()}; missing draws would bias the estimate: resume the run"
        )
    if not round_.mass > 0:
        raise StoreError(f"{where}: mass {round_.mass} is not positive; the log's plan is damaged")
    if not (round_.log_q < np.inf).all():
        raise StoreError(f"{where}: a log-probability is NaN or +inf; the log is damaged")
    if not np.isfinite(round_.log_q_sample).all():
        raise StoreError(f"{where}: the sampling pass's log-probability is not finite; the log is damaged")
