"""Shares across groups of prompts, and shares that are known beforehand."""

from __future__ import annotations

import numpy as np
import pytest
from searchworlds import World, law

from tailrisk.stats.ledger import RoundDraws
from tailrisk.stats.shares import component_shares, initial_shares, with_floors

SHARE = 0.2


def world(good: int, rng: np.random.Generator) -> World:
    """Of components 1 and 2 one finds the harm, the other next to none of it."""
    shape = rng.dirichlet(np.ones(20))
    rows = [law(rng, shape, 30, 1e-4)]
    rows += [law(rng, shape, 30, 0.4 if k == good else 1e-3) for k in (1, 2)]
    return World(np.array(rows), np.arange(50) < 20)


def prompts(rng: np.random.Generator, goods: list[int], n: int = 40) -> list[list[RoundDraws]]:
    return [[world(good, rng).draw([10, n, n], rng, mass=1.0)] for good in goods]


def blind(rounds: list[RoundDraws]) -> list[RoundDraws]:
    return [r._replace(verdict=np.zeros_like(r.verdict)) for r in rounds]


def shares(rounds, **kwargs) -> np.ndarray:
    return component_shares(rounds, target_share=SHARE, corrected=False, **kwargs)


def test_a_prompt_without_hits_follows_its_group():
    rng = np.random.default_rng(0)
    rounds = prompts(rng, [1, 1, 1, 2, 2, 2])
    rounds[0], rounds[3] = blind(rounds[0]), blind(rounds[3])
    pooled = shares(rounds)
    assert np.array_equal(pooled[0], pooled[3]), "without groups nothing tells them apart"
    assert abs(pooled[0, 1] - pooled[0, 2]) < 0.2
    grouped = shares(rounds, groups=["a", "a", "a", "b", "b", "b"])
    assert grouped[0, 1] > 0.5 > grouped[0, 2] and grouped[3, 2] > 0.5 > grouped[3, 1]
    assert grouped[0, 1] > pooled[0, 1] + 0.1 and grouped[3, 2] > pooled[3, 2] + 0.1
    assert grouped.sum(axis=1) == pytest.approx(1.0) and (grouped[:, 0] >= SHARE).all()


def test_groups_that_say_nothing_change_nothing_bit_for_bit():
    rng = np.random.default_rng(1)
    rounds = prompts(rng, [1, 2, 1, 2])
    plain = shares(rounds)
    alone: list[str | None] = ["a", "b", "c", "d"]
    for groups in (None, [None] * 4, alone):
        assert np.array_equal(shares(rounds, groups=groups), plain)
    rounds[0], rounds[1] = blind(rounds[0]), blind(rounds[1])
    assert np.array_equal(shares(rounds, groups=["a", "a", "b", None]), shares(rounds)), "no hits in group a"


def test_a_group_s_shares_are_drawn_to_those_of_all_prompts():
    """The fewer prompts of a group have hits, the more do the others count."""
    rng = np.random.default_rng(2)
    rounds = prompts(rng, [1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2])
    rounds[0] = blind(rounds[0])
    towards = []
    for size in (0, 1, 2, 5):
        members = [0, *range(1, 1 + size)]
        groups = ["a" if i in members else None for i in range(12)]
        towards.append(shares(rounds, groups=groups)[0, 1])
    assert np.all(np.diff(towards) > 0.01), towards


def test_own_hits_outweigh_the_group_s():
    rng = np.random.default_rng(3)
    rounds = prompts(rng, [1, 1, 1, 2], n=300)
    odd = shares(rounds, groups=["a"] * 4)[3]
    assert odd[2] > 0.6


def test_a_start_counts_until_hits_come():
    rng = np.random.default_rng(4)
    begin = np.array([0.2, 0.15, 0.65])
    rounds = [blind(r) for r in prompts(rng, [1, 1])]
    assert shares(rounds, start=begin) == pytest.approx(np.tile(begin, (2, 1)))
    assert np.array_equal(shares(rounds), np.tile(initial_shares(3, SHARE), (2, 1)))
    extreme = shares(rounds, start=np.array([0.0, 1.0, 0.0]))
    assert extreme[0] == pytest.approx(with_floors(np.array([0.0, 1.0, 0.0]), SHARE))
    few = prompts(rng, [1], n=6)
    many = prompts(rng, [1] * 12, n=200)
    gap = [abs(shares(r, start=begin)[0, 1] - shares(r)[0, 1]) for r in (few, many)]
    assert gap[0] > gap[1] and gap[1] < 0.02
