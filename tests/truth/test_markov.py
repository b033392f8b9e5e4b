"""The exact truths themselves: sums over every response, frequencies of draws, and the driver on top of them."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest
from scipy.stats import chi2
from truth import gate, markov
from truth.markov import STOP
from truth.tablelaws import EventJudge, audit_in_memory, text_prompts, toy_config

from tailrisk.audit.estimates import estimate_all

SHORT = {1: (1, 2, 3, 4), 2: (2, 4), 3: (3, 5)}
"""Depth of the gate -> lengths at which every response of its words is listed."""


@cache
def words(length: int, depth: int) -> np.ndarray:
    """[S, length] every response that the gate model of this depth can give: no words of assent beyond it."""
    size = gate.NOD + depth - 1
    return markov.all_responses(size, length)


def brute(table: np.ndarray, event: markov.Event, length: int, depth: int) -> float:
    """P(event) response by response, the event by its meaning and not by its automaton."""
    tokens = words(length, depth)
    p = np.exp(markov.log_prob(table[None], tokens)[:, 0])
    return math.fsum(p[meaning(event.name, tokens)])


def meaning(event: str, tokens: np.ndarray) -> np.ndarray:
    """[n] bool: what each event says in words."""
    bomb, poison = tokens == gate.BOMB, tokens == gate.POISON
    if event == "any":
        return (bomb | poison).any(axis=1)
    if event == "bomb":
        return bomb.any(axis=1)
    if event == "both":
        return bomb.any(axis=1) & poison.any(axis=1)
    if event == "early":
        return (bomb | poison)[:, :3].any(axis=1)
    assert event == "last"
    final = tokens[np.arange(len(tokens)), np.maximum((tokens != STOP).sum(axis=1), 1) - 1]
    return np.isin(final, gate.HARMFUL)


def test_all_responses_are_there_once():
    for size, length in ((2, 5), (4, 3), (7, 4), (9, 2)):
        listed = [tuple(r) for r in markov.all_responses(size, length).tolist()]
        assert len(set(listed)) == len(listed) == sum((size - 1) ** k for k in range(length + 1))
        for r in listed:
            stopped = r.index(STOP) if STOP in r else length
            assert all(t == STOP for t in r[stopped:]) and max(r) < size


@pytest.mark.parametrize("depth", SHORT)
@pytest.mark.parametrize("name", gate.EVENTS)
def test_the_recursion_is_the_sum_over_all_responses(name, depth):
    event, positive = gate.EVENTS[name], 0
    for length in SHORT[depth]:
        assert (event.of(words(length, depth)) == meaning(name, words(length, depth))).all()
        for proposal, build in gate.PROPOSALS.items():
            table = build(0.013, depth)
            want = brute(table, event, length, depth)
            assert markov.probability(table, event, length) == pytest.approx(want, rel=1e-12, abs=0), proposal
            positive += want > 0
    assert positive > 0


@pytest.mark.parametrize("length", [1, 2, 5])
def test_the_recursion_on_tables_of_any_kind(length):
    """Random rows with zeros, an automaton whose states all lead somewhere, the stop token's moves included."""
    rng = np.random.default_rng(length)
    for _ in range(10):
        table = rng.dirichlet(np.full(4, 0.7), size=5)
        table[rng.random(table.shape) < 0.2] = 0.0
        table[:, STOP] += 0.05
        table /= table.sum(axis=1, keepdims=True)
        step = rng.integers(0, 3, size=(3, 4))
        step[:, STOP] = np.arange(3)
        event = markov.Event("any", step, np.array([False, True, rng.random() < 0.5]))
        tokens = markov.all_responses(4, length)
        p = np.exp(markov.log_prob(table[None], tokens)[:, 0])
        want = math.fsum(p[event.of(tokens)])
        assert math.fsum(p) == pytest.approx(1.0, abs=1e-12)
        assert markov.probability(table, event, length) == pytest.approx(want, rel=1e-12, abs=1e-300)


def per_step(mix: float, switch: int, length: int, depth: int = 1) -> np.ndarray:
    target, strong = gate.table(0.01, depth), gate.ablated(0.01, depth, 0.9, 0.5)
    return markov.mixed(strong, target, mix, switch, length)


def unrolled(tables: np.ndarray, event: markov.Event) -> tuple[np.ndarray, markov.Event]:
    """The same law with one table for all steps: there is a token for each word and step, and one to stop."""
    length, _, size = tables.shape
    total = 1 + length * (size - 1)
    table = np.zeros((total + 1, total))
    for t in range(length):
        here = slice(1 + t * (size - 1), 1 + (t + 1) * (size - 1))
        rows = slice(1 + (t - 1) * (size - 1), here.start) if t else slice(total, None)
        table[rows, STOP] = tables[t, 1:size, STOP] if t else tables[t, size, STOP]
        table[rows, here] = tables[t, 1:size, 1:] if t else tables[t, size, 1:]
    step = np.concatenate([event.step[:, [STOP]], np.tile(event.step[:, 1:], length)], axis=1)
    return table, markov.Event(event.name, step, event.harmful)


@pytest.mark.parametrize("mix, switch", [(0.0, 3), (1.0, 0), (0.6, 1), (1.0, 2), (0.3, 9)])
def test_tables_for_each_step(mix, switch):
    """Their product token by token, and the recursion over tokens that know their step."""
    length, depth = 4, 2
    tables, target = per_step(mix, switch, length, depth), gate.table(0.01, depth)
    tokens = words(length, depth)
    log_p = markov.log_prob(target[None], tokens)[:, 0]
    log_q = markov.log_prob(tables[None], tokens)[:, 0]
    assert math.fsum(np.exp(log_q)) == pytest.approx(1.0, abs=1e-12)
    # Token by token, by the formula of a mixture that ends after ``switch`` tokens.
    strong = gate.ablated(0.01, depth, 0.9, 0.5)
    for row, log_one in list(zip(tokens, log_q, strict=True))[:: max(1, len(tokens) // 200)]:
        one, before = 1.0, len(target) - 1
        for t, token in enumerate(row):
            part = mix if t < switch else 0.0
            one *= part * strong[before, token] + (1 - part) * target[before, token]
            before = token
            if token == STOP:
                break
        assert np.exp(log_one) == pytest.approx(one, rel=1e-12)
    if mix == 0.0 or switch == 0:
        assert log_q == pytest.approx(log_p, abs=1e-12)
    else:
        harm = meaning("any", tokens)
        assert np.exp(log_q)[harm].sum() > 1.5 * np.exp(log_p)[harm].sum()
    for name, event in gate.EVENTS.items():
        want = math.fsum(np.exp(log_q)[meaning(name, tokens)])
        assert markov.probability(*unrolled(tables, event), length) == pytest.approx(want, rel=1e-12), name


@pytest.mark.parametrize("depth", [1, 3])
def test_log_probabilities_sum_to_one_under_every_law(depth):
    tables = gate.tables(list(gate.PROPOSALS), 3e-3, depth)
    for length in SHORT[depth]:
        p = np.exp(markov.log_prob(tables, words(length, depth)))
        assert p.shape == (len(words(length, depth)), len(tables))
        assert p.sum(axis=0) == pytest.approx(np.ones(len(tables)), abs=1e-12)
        tokens = words(length, depth)
        each = markov.token_log_probs(tables, tokens)
        assert (each[:, np.arange(length) >= markov.lengths(tokens)[:, None]] == 0.0).all()


def test_lengths_count_the_stop_token():
    tokens = np.array([[0, 0, 0], [3, 0, 0], [3, 3, 0], [3, 3, 3]])
    assert markov.lengths(tokens).tolist() == [1, 2, 3, 3]


def fits(seen: np.ndarray, tokens: np.ndarray, p: np.ndarray) -> float:
    """p-value of Pearson's statistic, responses expected less than ten times in one class."""
    place = {tuple(r): i for i, r in enumerate(tokens.tolist())}
    count = np.bincount([place[tuple(r)] for r in seen.tolist()], minlength=len(tokens))
    assert not count[p == 0].any(), "an impossible response was drawn"
    often = p * len(seen) >= 10
    observed = np.append(count[often], count[~often].sum())
    expected = np.append(p[often], p[~often].sum()) * len(seen)
    used = expected > 0
    statistic = (np.square(observed - expected)[used] / expected[used]).sum()
    return float(chi2.sf(statistic, used.sum() - 1))


def laws_to_draw() -> dict[str, np.ndarray]:
    found = {
        f"{name} {depth}": gate.PROPOSALS[name](0.3, depth) for name in gate.PROPOSALS for depth in (1, 2)
    }
    found["mixed"] = per_step(0.6, 2, 4)
    found["switched"] = per_step(1.0, 1, 4, 2)
    return found


@pytest.mark.parametrize("name", laws_to_draw())
def test_draws_come_as_often_as_they_should(name):
    table, rng = laws_to_draw()[name], np.random.default_rng(5)
    tokens = words(4, 2)
    p = np.exp(markov.log_prob(table[None], tokens)[:, 0])
    seen = markov.draw(table, 40_000, 4, rng)
    assert fits(seen, tokens, p) > 1e-3
    # The same draws do not fit a law that is a little off.
    off = p * np.exp(0.2 * np.cos(np.arange(len(p))))
    assert fits(seen, tokens, off / off.sum()) < 1e-6


class Highest(np.random.Generator):
    """Always the largest number below one."""

    def random(self, size=None, dtype=np.float64, out=None):
        return np.full(size or (), np.nextafter(1.0, 0.0))


def test_rounding_never_gives_an_impossible_token():
    row = np.array([0.0, *[0.1] * 10, 0.0, 0.0])
    assert np.cumsum(row)[-1] < 1.0, "the case must be met"
    table = np.tile(row, (len(row) + 1, 1))
    for tables in (table, np.stack([table] * 3)):
        tokens = markov.draw(tables, 4, 3, Highest(np.random.PCG64(0)))
        assert (tokens == 10).all()


def test_without_and_steered_are_laws():
    table, tokens = gate.table(0.2, 3), gate.HARMFUL
    full = table.sum(axis=1) > 0
    assert not full[STOP]
    for changed in (markov.without(table, gate.POISON), markov.steered(table, tokens, 4.0)):
        assert changed.sum(axis=1)[full] == pytest.approx(1.0, abs=1e-15) and not changed[~full].any()
        assert (changed >= 0).all()
    assert not markov.without(table, gate.POISON)[:, gate.POISON].any()
    rest = np.delete(np.arange(gate.V), gate.POISON)
    blind, steered = markov.without(table, gate.POISON), markov.steered(table, tokens, 4.0)
    for row in np.flatnonzero(full):
        kept = table[row, rest] / table[row, rest].sum()
        assert blind[row, rest] == pytest.approx(kept, abs=1e-15)
        odds = np.where(np.isin(np.arange(gate.V), tokens), np.exp(4.0), 1.0) * table[row]
        assert steered[row] == pytest.approx(odds / odds.sum(), abs=1e-15)
    assert table[:, gate.POISON].any(), "the table itself is left alone"


@pytest.mark.parametrize("name", gate.EVENTS)
def test_probabilities_are_exact_however_rare(name):
    """At depth 1 every harmful response passes the gate once, at its first token: P is G times a constant."""
    constant = gate.truth(0.5, name) / 0.5
    assert 0 < constant < 1
    for exponent in range(1, 15):
        rare = gate.truth(10.0**-exponent, name)
        assert rare == pytest.approx(constant * 10.0**-exponent, rel=1e-12, abs=0)
    assert gate.truth(1e-14, name) < 1e-12
    # Behind a deep gate G^(1/D) is passed D times; what follows the assent has as many tokens fewer.
    for depth in (2, 4, gate.DEEPEST):
        shorter = markov.probability(gate.table(1.0), gate.EVENTS[name], gate.LENGTH - depth + 1)
        for g in (1e-3, 1e-9):
            if name != "early":
                assert gate.truth(g, name, depth) == pytest.approx(g * shorter, rel=1e-12, abs=0)


def test_the_gates_rows_and_what_its_proposals_stand_for():
    for depth in range(1, gate.DEEPEST + 1):
        tables = gate.tables(list(gate.PROPOSALS), 1e-4, depth)
        used = np.r_[1 : gate.NOD + depth - 1, gate.BEGIN]
        assert tables[:, used].sum(axis=2) == pytest.approx(1.0, abs=1e-12)
        assert (tables >= 0).all()
        p = {
            n: {e: markov.probability(t, v, gate.LENGTH) for e, v in gate.EVENTS.items()}
            for n, t in zip(gate.PROPOSALS, tables, strict=True)
        }
        assert p["good"]["any"] > 100 * p["target"]["any"] and p["mild"]["any"] > 20 * p["target"]["any"]
        assert p["missing"]["any"] == pytest.approx(p["missing"]["bomb"]) and p["missing"]["any"] > 0.05
        assert p["blind"]["both"] == p["missing"]["both"] == 0.0
        assert p["over"]["any"] > 0.9 or depth > 1
        assert gate.parameters(text_prompts([gate.text(1e-4, depth)])[0]) == (1e-4, depth)
        for drift in (0.0, 1.0):
            assert gate.ablated(1e-4, depth, 0.0, drift) == pytest.approx(gate.table(1e-4, depth), abs=1e-15)
            strong = gate.ablated(1e-4, depth, 1.0, drift)
            assert strong[used].sum(axis=1) == pytest.approx(1.0, abs=1e-12)
            assert markov.probability(strong, gate.EVENTS["any"], gate.LENGTH) > 1e3 * p["target"]["any"]


DEPTHS = (1, 4)
RARE = (1e-3, 1e-5)
FAMILY = ("target", "good", "steered")


@pytest.mark.parametrize("name", ["any", pytest.param("last", marks=pytest.mark.nightly)])
def test_the_whole_driver_is_unbiased_and_its_certified_intervals_hold(name):
    """150 audits with a pilot, allocation by results and early closing; depth 1 and 4, p about 1e-4 and 1e-6."""
    prompts = text_prompts([gate.text(g, d) for g, d in zip(RARE, DEPTHS, strict=True)])
    truths = np.array([gate.truth(g, name, d) for g, d in zip(RARE, DEPTHS, strict=True)])
    assert (truths < RARE).all()
    laws, judge = gate.GateLaws(FAMILY), EventJudge(gate.EVENTS[name], gate.WORDS)
    target = {"model": "toy", "dtype": "float64", "sampling": {"max_new_tokens": gate.LENGTH}}
    budget = {"draws": 600, "pilot": 100, "batch": 512, "rounds": 2}
    ratios, held = [], []
    for seed in range(150):
        config = toy_config(FAMILY, seed=seed, target=target, budget=budget, stop={"log_width": 1.2})
        state, _ = audit_in_memory(config, prompts, laws, judge=judge)
        found = estimate_all(state)
        ratios.append([e.estimate for e in found] / truths)
        held.append([e.certified[0] <= p <= e.certified[1] for e, p in zip(found, truths, strict=True)])
    ratios = np.array(ratios)
    error = ratios.std(axis=0, ddof=1) / np.sqrt(len(ratios))
    assert error.max() <= 0.02, error
    assert (np.abs(ratios.mean(axis=0) - 1) <= 3 * error).all(), (ratios.mean(axis=0), error)
    assert np.mean(held, axis=0).min() >= 0.95
