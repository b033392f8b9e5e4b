"""Many questions, one error rate: Holm's step-down test with shares, for answers that have a direction.

Question i has a share w_i of alpha, fixed in advance; the shares add up to one at most. It has two answers, B above A
and B below A, and the chance of a wrong one at level t is t in all. It is ordered by p_i / w_i, and answered while
p_i <= alpha w_i / W, W being the shares that are left. An answer takes from W what its question no longer needs: the
opposite answer stays a possible mistake, so half of the share where each direction has its own p-value, and nothing
where the p-value is of both together. With W never below the shares of all wrong answers, the first wrong one is given
with probability alpha at most (Holm 1979), whatever the dependence; counting the opposite answers keeps this true of
directions too (Shaffer 1980).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Question(NamedTuple):
    """``p`` is two-sided. ``kept``: part of the share that stays in use once it is answered, a half or all."""

    p: float
    share: float
    kept: float = 0.5


def holm(questions: Sequence[Question]) -> list[float]:
    """Adjusted p-values: question i is answered at familywise level alpha where its value is at most alpha."""
    order = sorted(range(len(questions)), key=lambda i: questions[i].p / questions[i].share)
    left = sum(q.share for q in questions)
    adjusted, highest = [1.0] * len(questions), 0.0
    for i in order:
        q = questions[i]
        highest = max(highest, min(q.p / q.share * left, 1.0))
        adjusted[i] = highest
        left -= q.share * (1 - q.kept)
    return adjusted
