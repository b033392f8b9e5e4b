"""Holm's test with shares: by hand, and its error rate where directions may be wrong too."""

import numpy as np
import pytest
from scipy.stats import norm

from tailrisk.stats.multiplicity import Question, holm


def test_one_question_with_all_of_alpha_keeps_its_p_value():
    assert holm([Question(0.03, 1.0)]) == [0.03]
    assert holm([]) == []


def test_adjusted_values_by_hand():
    """Three of a third each. The first costs all shares, the second all but half of one, the third all but one."""
    third = 1 / 3
    found = holm([Question(0.04, third), Question(0.001, third), Question(0.01, third)])
    assert found == pytest.approx([0.04 * 3 * (2 / 3), 0.001 * 3, 0.01 * 3 * (5 / 6)])
    # Where the p-value is of both directions together an answer frees nothing.
    kept = holm([Question(0.04, third, 1.0), Question(0.001, third, 1.0), Question(0.01, third, 1.0)])
    assert kept == pytest.approx([0.12, 0.003, 0.03])


def test_shares_decide_who_is_asked_first_and_values_never_fall():
    found = holm([Question(0.02, 0.9), Question(0.01, 0.1)])
    left = 1 - 0.9 / 2
    assert found == pytest.approx([0.02 / 0.9, 0.01 / 0.1 * left])
    # The second would be 0.011 by itself; it is not answered before the first.
    assert holm([Question(0.02, 0.9), Question(0.004, 0.1)]) == pytest.approx([0.02 / 0.9, 0.02 / 0.9])
    assert max(holm([Question(0.9, 0.5), Question(1.0, 0.5)])) <= 1.0


@pytest.mark.parametrize("shift", [0.0, 0.6, 3.5])
def test_the_chance_of_any_wrong_answer_is_held(shift):
    """Ten questions, half of them with nothing to find, the others shifted a little or a lot."""
    rng, m, times = np.random.default_rng(4), 10, 4000
    truth = np.where(np.arange(m) < m // 2, 0.0, shift)
    wrong = found = 0
    for z in rng.normal(truth, 1.0, (times, m)):
        p = 2 * norm.sf(np.abs(z))
        answered = np.array(holm([Question(x, 1 / m) for x in p])) <= 0.05
        wrong += bool((answered & ((truth == 0) | (z < 0))).any())
        found += int((answered & (truth > 0) & (z > 0)).sum())
    assert wrong / times <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / times)
    if shift > 3:
        assert found / times / (m - m // 2) > 0.7
