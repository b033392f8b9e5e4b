"""Component shares against the exact optimum over tables."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from stats_tables import steered

from tailrisk.stats import RoundDraws, component_shares, initial_shares, with_floors

TABLE = steered(8.0, 14.0)


def draws(counts, seed=0):
    return TABLE.draw(np.array(counts), np.random.default_rng(seed))


def cross_entropy(a: float) -> float:
    """Exact -E_q*[log q_beta] with shares 0.2, a, 0.8 - a."""
    p = np.exp(TABLE.log_q[:, 0]) * TABLE.harm
    return float(-(p / p.sum()) @ np.log(np.exp(TABLE.log_q) @ [0.2, a, 0.8 - a]))


def test_initial_shares():
    assert initial_shares(1, 0.2).tolist() == [1.0]
    assert initial_shares(3, 0.2).tolist() == pytest.approx([0.2, 0.4, 0.4])


def test_the_shares_are_those_nearest_to_the_law_of_harm():
    best = minimize_scalar(cross_entropy, bounds=(0.02, 0.78), method="bounded").x
    shares = component_shares([[draws([2000, 9000, 9000])]], target_share=0.2, corrected=False)[0]
    assert shares.sum() == pytest.approx(1.0) and shares[0] >= 0.2
    assert shares[1] == pytest.approx(best, abs=0.03)
    assert TABLE.rho(shares) < TABLE.rho(initial_shares(3, 0.2))


def test_no_hits_anywhere_keep_the_initial_shares():
    none = draws([20, 20, 20])
    none = none._replace(verdict=np.zeros(60, dtype=np.int8))
    rows = component_shares([[none], []], target_share=0.3, corrected=False)
    assert rows.tolist() == [initial_shares(3, 0.3).tolist()] * 2


def test_prompts_without_hits_learn_from_the_others():
    many = [[draws([100, 400, 400], seed)] for seed in range(5)]
    none = draws([20, 20, 20])
    none = none._replace(verdict=np.zeros(60, dtype=np.int8))
    rows = component_shares([*many, [none]], target_share=0.2, corrected=False)
    assert rows.shape == (6, 3) and np.allclose(rows.sum(axis=1), 1)
    # The milder steering finds what matters; the stronger one stays at its floor, and never at nothing.
    assert rows[5, 1] > 0.6 and rows[5, 2] >= 0.01
    assert (rows[:, 0] >= 0.2).all()


def only(k: int, n: int) -> RoundDraws:
    """``n`` hits of component k of three, which no other is likely to draw."""
    log_q = np.full((n, 3), -60.0)
    log_q[:, 0], log_q[:, k] = -20.0 - np.arange(n) * 1e-3, -10.0
    counts = np.zeros(3, dtype=np.int64)
    counts[k] = n
    return RoundDraws(counts, 1.0, np.full(n, k), log_q, log_q[:, k], np.ones(n, dtype=np.int8))


def test_own_hits_outweigh_the_prior_as_they_grow():
    """One prompt's harm is found by component 2, that of all others by component 1."""
    others = [[only(1, 50)] for _ in range(20)]
    shares = [
        component_shares([*others, [only(2, n)]], target_share=0.1, corrected=False)[-1, 2]
        for n in (2, 20, 1000)
    ]
    assert shares[0] < shares[1] < shares[2] and shares[0] < 0.3 and shares[2] > 0.8


def mixed(good: int, over: int) -> RoundDraws:
    """Hits of a good proposal, 1, and of an over-steered one, 2, that weigh next to nothing beside them."""
    log_q = np.array([[-20.0, -10.0, -60.0]] * good + [[-30.0, -40.0, -3.0]] * over)
    component = np.repeat([1, 2], [good, over])
    own = np.take_along_axis(log_q, component[:, None], axis=1)[:, 0]
    return RoundDraws(
        np.array([0, good, over]), 1.0, component, log_q, own, np.ones(good + over, dtype=np.int8)
    )


def test_prompts_where_one_component_alone_has_hits_teach_the_others_less():
    """An over-steered proposal hits wherever it draws, a good one now and then. Where both have hits the weights tell
    them apart; where only the first has some, nothing does."""
    none = draws([20, 20, 20])
    none = none._replace(verdict=np.zeros(60, dtype=np.int8))
    trap, seen = [[mixed(0, 8)]] * 10, [[mixed(2, 8)]] * 4
    rows = component_shares([*trap, *seen, [none]], target_share=0.2, corrected=False)
    assert rows[-1, 1] > rows[-1, 2] > 0.02, (
        "the fewer prompts that can tell weigh more than those that cannot"
    )
    assert (rows[10:14, 1] > rows[:10, 1].max()).all()
    alone = component_shares([trap[0]], target_share=0.2, corrected=False)[0]
    told = component_shares([[mixed(0, 8), mixed(8, 8)]], target_share=0.2, corrected=False)[0]
    assert alone[2] < 0.65 and told[1] > 0.6


def test_a_lone_find_counts_for_what_its_component_was_worth_elsewhere():
    """Component 1 and component 2 each have a prompt of their own; others saw both, and which of them weighed."""
    lone = [[only(1, 4)], [only(2, 4)]]
    unknown = component_shares(lone, target_share=0.2, corrected=False)
    told = component_shares([*lone, *[[mixed(4, 4)]] * 3], target_share=0.2, corrected=False)
    assert unknown[0, 1] == pytest.approx(unknown[1, 2])
    # Each against a prior of the same shares, so that only what the own hits count for differs.
    own = told - component_shares([*lone, *[[mixed(4, 4)]] * 3, []], target_share=0.2, corrected=False)[-1]
    assert own[0, 1] > 0
    assert own[1, 2] < 0.7 * (unknown[1, 2] - initial_shares(3, 0.2)[2])


def test_what_many_hits_of_one_prompt_say_of_a_component_is_bounded():
    lone = [only(2, 4)]
    shares = [
        component_shares([lone, [mixed(n, n)]], target_share=0.2, corrected=False)[0] for n in (10, 1000)
    ]
    assert shares[0][2] == pytest.approx(shares[1][2], abs=0.02)


@pytest.mark.parametrize(
    "shares", [[1, 0, 0], [0, 0, 0], [0.05, 0.94, 0.01], [0.19, 0.01, 0.8], [0.9, 0.05, 0.05]]
)
def test_floors(shares):
    result = with_floors(np.array(shares, dtype=float), 0.2)
    assert result.sum() == pytest.approx(1.0, abs=1e-15)
    assert result[0] >= 0.2 and (result[1:] >= 0.01).all()


def test_floors_of_many_components_leave_room():
    result = with_floors(np.r_[0.1, 0.9, np.zeros(98)], 0.2)
    assert result.sum() == pytest.approx(1.0) and result[1] > 0.7 and result[2] > 0
