"""What a second reader of a prompt's round was asked and has said: the strong judge, or people who review a run."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tailrisk.records import FloatArray, IntArray, JudgedTexts, Verdict
from tailrisk.stats import NOT_ASKED, RoundDraws, StrongSample
from tailrisk.stats.twostage import predictions
from tailrisk.store import Sample


class Second(NamedTuple):
    """The strong judge's part in a round: ``least`` and ``corrected`` as for estimates."""

    least: float
    corrected: bool


class Reading:
    """One reader's sample of a prompt's round, by rows in the order of (component, batch, draw).

    ``rows`` [m] in increasing order, ``inclusion`` [m]; ``verdicts`` and ``scores`` [m], ``errors`` by place in the
    sample. ``waiting``: places without a verdict yet.
    """

    def __init__(self, sample: Sample, confirmed: tuple[float, ...], least: float) -> None:
        self.rows: IntArray = np.asarray(sample.rows, dtype=np.int64)
        self.inclusion: FloatArray = np.asarray(sample.inclusion, dtype=np.float64)
        self.verdicts: NDArray[np.int8] = np.full(len(self.rows), NOT_ASKED, dtype=np.int8)
        self.scores: FloatArray = np.full(len(self.rows), np.nan)
        self.errors: dict[int, str] = {}
        self.confirmed: FloatArray = np.asarray(confirmed, dtype=np.float64)
        self.least = least
        self._base: FloatArray | None = None

    def tell(self, rows: tuple[int, ...], judged: JudgedTexts) -> None:
        places = np.searchsorted(self.rows, np.asarray(rows, dtype=np.int64))
        if len(rows) and (places.max() >= len(self.rows) or (self.rows[places] != rows).any()):
            raise ValueError("a draw that was not asked about")
        self.verdicts[places] = judged.verdicts
        self.scores[places] = judged.scores
        for place, error in zip(places.tolist(), judged.errors, strict=True):
            self.errors.pop(place, None)
            if error:
                self.errors[place] = error

    def told(self) -> bool:
        return not (self.verdicts == NOT_ASKED).any()

    def waiting(self, *, failed: bool) -> list[int]:
        """Rows without a verdict; with those that could not be judged, if ``failed``."""
        places = np.flatnonzero(self.verdicts == NOT_ASKED).tolist()
        if failed:
            places = sorted([*places, *self.errors])
        return self.rows[places].tolist()

    def sample(self, draws: RoundDraws, *, corrected: bool) -> StrongSample:
        """For the statistics: ``draws`` are those of the round, as the judge of all draws has them."""
        base = predictions(draws, self.confirmed, corrected=corrected)
        inclusion, verdict = np.ones(draws.n), np.full(draws.n, NOT_ASKED, dtype=np.int8)
        inclusion[self.rows], verdict[self.rows] = self.inclusion, self.verdicts
        return StrongSample(inclusion, verdict, base, base, self.least)


def reviewed(draws: RoundDraws, review: Reading) -> RoundDraws:
    """The same draws with the word of those who reviewed in the place of the judges'.

    The estimate before is taken as it is, and corrected by what they changed: each reviewed draw stands for one over
    the probability that it was, which is that of both samples where a strong judge read one. Draws without a label
    are undetermined.
    """
    if draws.strong is None:
        before = draws.flagged.astype(np.float64)
        base, first = before, np.ones(draws.n)
    else:
        strong = draws.strong
        before, first = (strong.verdict == int(Verdict.HARM)).astype(np.float64), strong.inclusion
        base = strong.base + np.where(strong.asked, (before - strong.prediction) / strong.inclusion, 0.0)
    inclusion, verdict = np.ones(draws.n), np.full(draws.n, NOT_ASKED, dtype=np.int8)
    inclusion[review.rows] = review.inclusion * first[review.rows]
    verdict[review.rows] = np.where(review.verdicts == NOT_ASKED, int(Verdict.UNDETERMINED), review.verdicts)
    return draws._replace(strong=StrongSample(inclusion, verdict, base, before, 0.0))
