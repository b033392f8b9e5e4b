"""Masses of rounds: they add up to one, and the last round closes at the error that was asked for."""

import math

import pytest

from tailrisk.stats import draws_to_close, pilot_worth, round_mass, target_se
from tailrisk.stats.intervals import working_interval


def test_masses_add_up_to_one_and_follow_the_draws():
    left, masses = 1.0, []
    for n, expected, final in ((50, 500, False), (150, 450, False), (200, 300, False), (100, 100, True)):
        masses.append(round_mass(left, n, expected, final=final))
        left -= masses[-1]
    assert left == pytest.approx(0.0, abs=1e-15)
    assert masses[:3] == pytest.approx([0.1, 0.3, 0.4])
    assert round_mass(0.5, 100, 20, final=False) == 0.5


def test_draws_that_are_worth_less_get_less_mass():
    assert round_mass(0.8, 50, 250, final=False, worth=0.5) == pytest.approx(0.8 * 25 / 225)
    assert round_mass(0.8, 50, 50, final=False, worth=0.5) == 0.8, "nothing is expected after it"
    assert round_mass(0.8, 50, 250, final=True, worth=0.5) == 0.8
    # By the worth, masses are inverse to variances: no other pilot mass does better than the right one.
    n, later, gain = 60, 240, 4.0
    mass = round_mass(1.0, n, n + later, final=False, worth=1 / gain)
    best = min(
        a**2 * gain / n + (1 - a) ** 2 / later for a in (mass, 0.9 * mass, 1.1 * mass, n / (n + later))
    )
    assert best == mass**2 * gain / n + (1 - mass) ** 2 / later
    assert [pilot_worth(k) for k in (0, 1, 4)] == [1.0, 1.0, 0.5]
    assert [pilot_worth(16, scouts=n) for n in (15, 16)] == [0.25, 0.5], "few scouts mislead too often"


def test_draws_to_close_reach_the_error_exactly():
    n = draws_to_close(2e-12, 0.6, 4e-8, 2e-6)
    assert 2e-12 + 0.6**2 * 4e-8 / n == pytest.approx((2e-6) ** 2)
    assert draws_to_close(5e-12, 0.6, 4e-8, 2e-6) == math.inf
    assert draws_to_close(1e-12, 0.0, 4e-8, 2e-6) == 0.0


@pytest.mark.parametrize("df", [3.0, 40.0])
def test_the_target_error_gives_the_width(df):
    se = target_se(1e-4, 0.7, 0.95, df)
    low, high = working_interval((1e-4, se), (1e-4, se), df=df, confidence=0.95)
    assert math.log(high / low) == pytest.approx(0.7)
    assert target_se(1e-4, 0.7, 0.95) > se
