"""What a search found: deterministic-mixture weights, answers counted once, exact cross-entropies."""

from __future__ import annotations

import numpy as np
import pytest
from searchworlds import World, planted

from tailrisk.stats.searchhits import pooled, scores, search_hits

COUNTS = np.array([20, 15, 15, 15, 15, 15, 15, 15, 15])


def world() -> World:
    return planted(np.random.default_rng(4))


def test_weights_are_of_the_mixture_that_drew_and_not_of_the_own_cell():
    here, rng = world(), np.random.default_rng(0)
    round_ = here.draw(COUNTS, rng)
    found = search_hits([round_], corrected=False)
    rows = np.flatnonzero(round_.harmful)
    q = np.exp(round_.log_q[rows])
    weight = q[:, 0] / (q @ (COUNTS / COUNTS.sum()))
    own = q[:, 0] / q[np.arange(len(rows)), round_.component[rows]]
    by_answer: dict[tuple, float] = {}
    for row, w in zip(round_.log_q[rows], weight, strict=True):
        by_answer[tuple(row)] = by_answer.get(tuple(row), 0.0) + w / weight.sum()
    assert found.weight.sum() == pytest.approx(1.0)
    assert len(found.weight) == len(by_answer) < len(rows), "answers that came twice are one"
    for row, w in zip(found.log_q, found.weight, strict=True):
        assert w == pytest.approx(by_answer[tuple(row)])
    assert found.hits == len(rows) and found.ess == pytest.approx(weight.sum() ** 2 / (weight**2).sum())
    assert found.by_component.sum() == found.hits
    assert own.max() / own.sum() > weight.max() / weight.sum(), "the weights it replaces are heavier"


def test_the_order_of_draws_and_rounds_and_common_factors_change_nothing():
    here, rng = world(), np.random.default_rng(1)
    round_ = here.draw(COUNTS, rng)
    order = rng.permutation(round_.n)
    shuffled = round_._replace(
        component=round_.component[order],
        log_q=round_.log_q[order],
        log_q_sample=round_.log_q_sample[order],
        verdict=round_.verdict[order],
    )
    a, b = search_hits([round_], corrected=False), search_hits([shuffled], corrected=False)
    assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
    scaled = round_._replace(log_q=round_.log_q - 900.0, log_q_sample=round_.log_q_sample - 900.0)
    assert search_hits([scaled], corrected=False).weight == pytest.approx(a.weight)


def test_numerics_corrections_enter_the_weights():
    here, rng = world(), np.random.default_rng(2)
    round_ = here.draw(COUNTS, rng)
    off = rng.normal(0, 0.3, round_.n)
    noisy = round_._replace(log_q_sample=round_.log_q_sample - off)
    plain, corrected = (search_hits([noisy], corrected=c) for c in (False, True))
    assert plain.weight == pytest.approx(search_hits([round_], corrected=False).weight)
    rows = np.flatnonzero(round_.harmful)
    q = np.exp(round_.log_q[rows])
    weight = q[:, 0] / (q @ COUNTS) * np.exp(off[rows])
    first = np.all(round_.log_q[rows] == corrected.log_q[0], axis=1)
    assert corrected.weight[0] == pytest.approx(weight[first].sum() / weight.sum())


def test_without_hits_and_with_answers_the_target_cannot_give():
    here, rng = world(), np.random.default_rng(3)
    round_ = here.draw(COUNTS, rng)
    none = search_hits([round_._replace(verdict=np.zeros_like(round_.verdict))], corrected=False)
    assert none.hits == 0 and none.ess == 0.0 and len(none.weight) == 0
    barred = round_.log_q.copy()
    barred[:, 0] = np.where(round_.component == 3, -np.inf, barred[:, 0])
    found = search_hits([round_._replace(log_q=barred)], corrected=False)
    assert found.by_component[3] == 0 and found.by_component[1] > 0


def test_prompts_count_alike_whatever_their_probability_of_harm_and_number_of_hits():
    rng = np.random.default_rng(5)
    often, seldom = planted(rng, mu=0.05), planted(rng, mu=1e-9)
    found = [search_hits([often.draw(9 * COUNTS, rng)], corrected=False)]
    found += [search_hits([seldom.draw(COUNTS, rng)], corrected=False)]
    pool = pooled(found)
    assert pool.weight[pool.unit == 0].sum() == pytest.approx(0.5)
    assert pool.weight[pool.unit == 1].sum() == pytest.approx(0.5)
    assert pool.hits == sum(f.hits for f in found)


def test_scores_tend_to_the_exact_ones():
    here, rng = world(), np.random.default_rng(6)
    pool = pooled([search_hits([here.draw(400 * COUNTS, rng)], corrected=False)])
    got = scores(pool, 0.2)
    assert got[0].gain == 0.0
    for k, score in enumerate(got):
        exact = here.cross_entropy(np.eye(len(got))[k])
        assert score.cross_entropy == pytest.approx(exact, abs=0.05)
        mixed = 0.2 * np.eye(len(got))[0] + 0.8 * np.eye(len(got))[k]
        exact = here.cross_entropy(np.eye(len(got))[0]) - here.cross_entropy(mixed)
        assert score.gain == pytest.approx(exact, abs=0.05)


def test_a_cell_that_misses_an_answer_has_an_infinite_cross_entropy_and_a_finite_gain():
    here, rng = world(), np.random.default_rng(7)
    laws = here.laws.copy()
    laws[3, :20] = 0.0
    laws[3] /= laws[3].sum()
    blind = World(laws, here.harm)
    got = scores(pooled([search_hits([blind.draw(COUNTS, rng)], corrected=False)]), 0.2)
    assert got[3].cross_entropy == np.inf and np.isfinite(got[3].gain)
    assert got[3].gain > np.log(0.2)
