"""Choosing components: exact shares, the planted best cell, and no more of them than held-out hits bear out."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from searchworlds import World, law, planted

from tailrisk.stats.searchhits import Pool, pooled, search_hits
from tailrisk.stats.selection import LEAST_GAIN, Selection, mixture_shares, select, with_one_of

SHARE = 0.2


def pool_of(world: World, draws: int, rng: np.random.Generator, prompts: int = 1) -> Pool:
    cells = len(world.laws) - 1
    counts = np.array([max(1, draws // 5), *np.full(cells, draws * 4 // 5 // cells)])
    return pooled([search_hits([world.draw(counts, rng)], corrected=False) for _ in range(prompts)])


def loss(pool: Pool, columns: list[int], shares: np.ndarray) -> float:
    return float(-(pool.weight @ np.log(np.exp(pool.log_q[:, columns]) @ shares)))


@pytest.mark.parametrize("floor", [0.2, 0.01])
def test_shares_are_the_constrained_optimum(floor):
    rng = np.random.default_rng(0)
    pool = pool_of(planted(rng, mu=0.02), 400, rng)
    columns = [0, 1, 3, 5]
    got = mixture_shares(pool, columns[1:], floor)
    assert got.sum() == pytest.approx(1.0) and got[0] >= floor and got.min() >= 0

    best = minimize(
        lambda b: loss(pool, columns, b),
        np.full(4, 0.25),
        bounds=[(floor, 1), *[(1e-9, 1)] * 3],
        constraints={"type": "eq", "fun": lambda b: b.sum() - 1},
        method="SLSQP",
    )
    assert best.success
    assert loss(pool, columns, got) == pytest.approx(float(best.fun), abs=2e-4)


def test_the_planted_cell_is_found_in_nine_of_ten_searches():
    rng = np.random.default_rng(1)
    found = 0
    for _ in range(60):
        world = planted(rng)
        pool = pool_of(world, 160, rng)
        found += select(pool, range(1, 9), keep=3, target_share=SHARE).components[0] == 3
    assert found >= 54, found


def two_modes(rng: np.random.Generator) -> World:
    """Cells 1 and 2 find one half of the harm each; cells 3 to 8 a little of everything, badly."""
    shape = rng.dirichlet(np.ones(40))
    half = np.arange(40) < 20
    rows = [law(rng, shape, 60, 1e-4)]
    rows += [law(rng, np.where(mine, shape, 1e-6), 60, 0.5) for mine in (half, ~half)]
    rows += [law(rng, shape * np.exp(rng.normal(0, 2, 40)), 60, 0.02) for _ in range(6)]
    return World(np.array(rows), np.arange(100) < 40)


def test_held_out_hits_keep_what_helps_and_leave_out_what_does_not():
    rng = np.random.default_rng(2)
    one, two, greedy = [], [], []
    for _ in range(40):
        single = pool_of(planted(rng), 160, rng)
        one.append(len(select(single, range(1, 9), keep=5, target_share=SHARE).components))
        greedy.append(len(select(single, range(1, 9), keep=5, target_share=SHARE, held_out=False).components))
        pair = select(pool_of(two_modes(rng), 160, rng), range(1, 9), keep=5, target_share=SHARE).components
        two.append(set(pair) >= {1, 2} and len(pair) <= 3)
    assert np.mean(one) < 1.6 and np.mean(greedy) > 2.5, (np.mean(one), np.mean(greedy))
    assert np.mean(two) >= 0.9


def test_whole_prompts_are_held_out_where_there_are_enough():
    """A cell that is good for one prompt of twelve only is not kept for all."""
    rng = np.random.default_rng(3)
    first = np.arange(30) < 15
    usual, other = (np.where(mine, rng.dirichlet(np.ones(30)), 1e-6) for mine in (first, ~first))
    good, lucky = law(rng, usual, 50, 0.5), law(rng, other, 50, 0.5)
    found = []
    for prompt in range(12):
        bad = other if prompt == 7 else usual * np.exp(rng.normal(0, 0.3, 30))
        world = World(np.array([law(rng, bad, 50, 1e-4), good, lucky]), np.arange(80) < 30)
        found.append(search_hits([world.draw([5, 20, 20], rng)], corrected=False))
    both = select(pooled(found), [1, 2], keep=2, target_share=SHARE, held_out=False)
    held = select(pooled(found), [1, 2], keep=2, target_share=SHARE)
    assert both.components == (1, 2) and held.components == (1,)
    assert len(held.held_out) == 3 and held.held_out[0] == 0.0
    assert held.held_out[2] <= held.held_out[1] + LEAST_GAIN


def test_gain_is_the_loss_against_the_target_and_held_out_is_no_larger():
    rng = np.random.default_rng(4)
    pool = pool_of(two_modes(rng), 300, rng)
    got = select(pool, range(1, 9), keep=3, target_share=SHARE)
    columns = [0, *got.components]
    plain = float(-(pool.weight @ pool.log_q[:, 0]))
    assert got.gain == pytest.approx(plain - loss(pool, columns, got.shares))
    assert got.held_out[len(got.components)] < got.gain + 1e-9


def test_few_hits_ties_and_small_numbers():
    rng = np.random.default_rng(5)
    pool = pool_of(planted(rng), 160, rng)
    one = Pool(np.ones(1), pool.log_q[:1], np.zeros(1, dtype=int), 1, 1.0)
    alone = select(one, [1, 2], keep=5, target_share=SHARE)
    assert 1 <= len(alone.components) <= 2 and alone.held_out == ()
    same = pool._replace(log_q=np.column_stack([pool.log_q[:, :2], pool.log_q[:, 1]]))
    assert select(same, [1, 2], keep=2, target_share=SHARE, held_out=False).components[0] == 1
    with np.errstate(all="raise"):
        far = pool._replace(log_q=pool.log_q - np.arange(len(pool.weight))[:, None] * 400.0)
        assert select(far, range(1, 9), keep=2, target_share=SHARE).components


def test_a_second_finder_takes_the_last_place():
    rng = np.random.default_rng(6)
    pool = pool_of(planted(rng), 160, rng)
    chosen = Selection((3, 5), np.array([0.2, 0.5, 0.3]), 8.0, (0.0, 7.0, 7.5))
    two = with_one_of(pool, chosen, [1, 2], keep=2, target_share=SHARE)
    three = with_one_of(pool, chosen, [1, 2], keep=3, target_share=SHARE)
    assert two.components in ((3, 1), (3, 2)) and three.components[:2] == (3, 5)
    losses = [loss(pool, [0, k], mixture_shares(pool, (k,), SHARE)) for k in (1, 2)]
    assert two.components[1] == 1 + int(np.argmin(losses))
    plain = float(-(pool.weight @ pool.log_q[:, 0]))
    assert two.gain == pytest.approx(plain - loss(pool, [0, *two.components], two.shares))


def test_a_component_that_gives_none_of_the_hits_ends_with_no_share():
    """Rounding may not blow up what has vanished."""
    rows = np.log([[0.027, 0.556, 1e-9], [0.0127, 0.26, 1e-9]])
    for log_q in (rows, np.column_stack([rows[:, :2], [-np.inf, -np.inf]])):
        pool = Pool(np.array([0.69, 0.31]), log_q, np.zeros(2, dtype=int), 2, 2.0)
        with np.errstate(all="raise", under="ignore"):
            for components in ((2,), (1, 2), (2, 1)):
                shares = mixture_shares(pool, components, SHARE)
                assert shares.sum() == pytest.approx(1.0) and shares.min() >= 0
                assert shares[1 + components.index(2)] < 1e-6
