"""Draws for a factor of two, as the study of learned proposals counts them, where they can be worked out."""

from __future__ import annotations

import itertools
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom

sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "benchmarks"))

import learned
from families.alone import FACTOR, FEWEST, STEP, WANTED, draws_needed, of_laws


def grid(most: int) -> list[int]:
    found = [FEWEST]
    while (n := math.ceil(found[-1] * STEP)) <= most:
        found.append(n)
    return found


def test_plain_sampling_needs_what_the_binomial_law_says():
    """The proposal is the target itself: the share of hits is within the factor by the binomial law."""
    p, harm = 0.04, np.array([True, False])
    log_p = np.log([p, 1 - p])
    counts = grid(2000)
    inside = [
        binom.cdf(math.floor(FACTOR * n * p), n, p) - binom.cdf(math.ceil(n * p / FACTOR) - 1, n, p)
        for n in counts
    ]
    held = [a >= WANTED and b >= WANTED for a, b in itertools.pairwise(inside)]
    wanted = held.index(True)
    found = draws_needed(of_laws(log_p, log_p, harm), p, 2000)
    assert found is not None and abs(counts.index(found) - wanted) <= 1
    assert draws_needed(of_laws(log_p, log_p, harm), p, counts[wanted] // 2) is None


def test_the_law_of_harm_itself_needs_next_to_nothing():
    harm = np.array([True, False])
    log_p = np.log([1e-6, 1 - 1e-6])
    with np.errstate(divide="ignore"):
        assert draws_needed(of_laws(log_p, np.log([1.0, 0.0]), harm), 1e-6, 100) == FEWEST


def test_a_proposal_that_misses_half_of_the_harm_is_not_taken_for_a_good_one():
    harm = np.array([True, True, False])
    log_p = np.log([4e-7, 6e-7, 1 - 1e-6])
    with np.errstate(divide="ignore"):
        log_q = np.log([1.0, 0.0, 0.0])
    assert draws_needed(of_laws(log_p, log_q, harm), 1e-6, 500) is None


def test_costs_of_a_fit_are_spread_over_the_prompts():
    part = {
        "rows": [
            {"name": "made", "learned": False, "nats": 2.0, "needed": [50, None]},
            {"name": "also made", "learned": False, "nats": 2.5, "needed": [80, 150]},
            {"name": "new", "learned": True, "nats": 0.5, "needed": [10, 30]},
        ],
        "most": 600,
        "seconds_a_draw": 0.5,
        "fits": {"new": {"draws": 1000, "seconds": 250.0}},
    }
    found = learned.compared(part)
    assert found["best_hand_made"] == [50, 150] and found["fits"]["new"]["worth"] == 1500
    assert found["rows"][2]["of_the_best"] == {
        "not_counted": pytest.approx(0.2),
        "counted": pytest.approx((40 + 2 * 15) / 200),
    }
    assert "new: 0.20 times the draws" in "\n".join(learned.lines("part", found))
