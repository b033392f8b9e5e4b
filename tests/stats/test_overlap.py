"""Corroboration: its formula by hand, its thresholds, and what it says of proposals whose faults are known."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from functools import cache

import numpy as np
import pytest
from stats_checks import five, unbiased
from stats_tables import common, good_pair, rounds_of
from truth import gate, markov

from tailrisk.stats import RoundDraws, estimate_prompt, event_mean
from tailrisk.stats.diagnostics import Diagnostics, diagnose
from tailrisk.stats.estimators import Contributions
from tailrisk.stats.overlap import Overlap, overlap, restrictions, without_component
from tailrisk.stats.status import hit_reasons


def hits(part: Sequence[float], component: Sequence[int], q: Sequence[Sequence[float]]) -> Contributions:
    """Hits with these parts of the estimate and densities ``q`` [h, K]; the overlap looks at nothing else."""
    nothing = np.zeros(len(part))
    with np.errstate(divide="ignore"):
        log_q = np.log(np.array(q, dtype=float).reshape(len(part), -1)) if len(part) else np.empty((0, 3))
    return Contributions(np.array(part, dtype=float), nothing, nothing, np.array(component, dtype=int), log_q)


def counts(*n: int) -> np.ndarray:
    return np.array(n, dtype=np.int64)


def by_hand(parts: Contributions, n: np.ndarray, asked: Sequence[int]) -> float:
    """The part of the estimate where mu sum_j n_j q_j / p >= e, hit by hit, over the components asked."""
    mu, near = float(sum(parts.part)), 0.0
    for part, row in zip(parts.part, np.exp(parts.log_q), strict=True):
        expected = mu * sum(int(n[j]) * row[j] for j in asked) / row[0]
        near += part if expected >= np.e else 0.0
    return near / mu


def test_the_part_in_reach_worked_out_on_paper():
    """mu = 0.01 and p = 1e-4 throughout, so x is in reach where the draws expected at x, sum_j n_j q_j, reach
    e p / mu = 0.0272."""
    parts = hits(
        [0.005, 0.003, 0.002],
        [1, 1, 2],
        [[1e-4, 2.0e-3, 1.0e-3], [1e-4, 2.6e-4, 1.8e-4], [1e-4, 1.0e-5, 2.5e-3]],
    )
    # Expected draws of a:  0.2, 0.026, 0.001;  of b:  0.1, 0.018, 0.25;  of the target 0.001 each.
    o = overlap(parts, counts(10, 100, 100), own=0)
    assert o.alone[1] == pytest.approx(0.5)  # 0.026 + 0.001 is just too little for the second
    assert o.alone[2] == pytest.approx(0.7)
    assert o.others == pytest.approx([1.0, 0.7, 0.5])  # both together reach the second
    assert o.alone[0] == 0.0 and o.own == 0 and o.hits.tolist() == [0, 2, 1]
    # With three more of the target the second is in a's reach: 0.026 + 0.0013 >= 0.0272.
    assert overlap(parts, counts(13, 100, 100), own=0).alone[1] == pytest.approx(0.8)
    # Twice the draws reach what half of the density would.
    assert overlap(parts, counts(20, 200, 200), own=0).alone[1:] == pytest.approx([0.8, 1.0])


def random_hits(rng: np.random.Generator, k: int) -> tuple[Contributions, np.ndarray]:
    size = int(rng.integers(1, 12))
    q = np.exp(rng.normal(-6, 3, size=(size, k)))
    q[:, 1:][rng.random((size, k - 1)) < 0.25] = 0.0
    n = rng.integers(0, 60, size=k) * (rng.random(k) < 0.8)
    n[rng.integers(k)] += 1
    part = np.exp(rng.normal(-5, 1, size=size))
    return hits(part.tolist(), rng.integers(0, k, size=size).tolist(), q.tolist()), n.astype(np.int64)


def test_the_part_in_reach_on_random_tables():
    """Densities of zero, components without draws, hits out of everyone's reach, one component and many."""
    rng = np.random.default_rng(1)
    between = 0
    for _ in range(400):
        k = int(rng.integers(1, 6))
        parts, n = random_hits(rng, k)
        o = overlap(parts, n, own=0)
        for j in range(k):
            others = [i for i in range(k) if i != j]
            if n[j]:
                assert o.others[j] == pytest.approx(by_hand(parts, n, others), abs=1e-12)
                assert o.alone[j] == pytest.approx(by_hand(parts, n, sorted({0, j})), abs=1e-12)
            else:
                assert o.others[j] == o.alone[j] == 0.0
            between += 0 < o.others[j] < 1
        assert o.hits.tolist() == [int((parts.component == j).sum()) for j in range(k)]
    assert between > 50


def test_a_hit_that_none_of_the_others_can_produce_is_out_of_their_reach():
    """Without any density its weight is -inf, which must not read as that of a very likely answer."""
    parts = hits([0.1, 0.1], [1, 2], [[1e-3, 0.5, 0.0], [1e-3, 0.0, 0.5]])
    o = overlap(parts, counts(0, 50, 50), own=0)
    assert o.others[1:] == pytest.approx([0.5, 0.5]) and o.alone[1:] == pytest.approx([0.5, 0.5])
    o = overlap(hits([0.1], [1], [[1e-3, 0.5, 0.0]]), counts(0, 50, 50), own=0)
    assert o.others[1] == 0.0 and o.alone[1] == 1.0
    assert o.others[2] == 1.0 and o.alone[2] == 0.0


def test_the_target_alone_and_no_hits_at_all():
    one = hits([0.05] * 20, [0] * 20, [[1e-3]] * 20)
    o = overlap(one, counts(400), own=20)
    assert o.corroborated and o.leader == 0 and o.alone[0] == 1.0 and o.others[0] == 0.0
    few = overlap(hits([0.01] * 4, [0] * 4, [[1e-3]] * 4), counts(400), own=4)
    assert not few.corroborated and few.leader == 0
    none = overlap(hits([], [], []), counts(9, 9, 9), own=0)
    assert not none.corroborated and none.hits.tolist() == [0, 0, 0] and not none.alone.any()


def second(others: float, alone: float, found: int, own: int = 0, first: bool = False) -> Overlap:
    """The first proposal leads and stands alone, but for what the second one shows; ``first``: it is the target
    behind an opening."""
    restricted = np.array([False, first, False])
    return Overlap(
        np.array([1.0, 0.4, others]), np.array([1.0, 0.9, alone]), own, np.array([own, 50, found]), restricted
    )


def test_when_a_second_proposal_counts():
    assert second(0.5, 0.5, 5).corroborated
    assert not second(0.499, 0.5, 5).corroborated, "the others do not find what it finds"
    assert not second(0.5, 0.499, 5).corroborated, "it finds too little by itself"
    assert not second(0.5, 0.5, 4).corroborated, "too few hits"
    # The first column is the target: only its own hits count, never what it could have found.
    assert not second(0.0, 0.0, 0, own=4)._replace(hits=np.array([9, 50, 0])).corroborated
    assert second(0.0, 0.0, 0, own=5).corroborated
    assert second(0.0, 0.0, 0).leader == 1 and second(1.0, 0.95, 0).leader == 2


def test_beside_the_target_behind_an_opening_less_will_do():
    assert second(0.5, 0.05, 5, first=True).corroborated
    assert not second(0.5, 0.05, 5).corroborated
    assert not second(0.499, 0.05, 5, first=True).corroborated, "it finds harm of another kind"
    assert not second(0.5, 0.049, 5, first=True).corroborated
    assert not second(0.5, 0.05, 4, first=True).corroborated
    # Two openings are no two ways: each is plain sampling of its own kind.
    both = second(0.5, 0.3, 5, first=True)._replace(restricted=np.array([False, True, True]))
    assert not both.corroborated


def test_the_target_behind_an_opening_is_known_by_its_constant_ratio():
    rng = np.random.default_rng(3)
    log_p = rng.normal(-20, 5, size=200)
    inside = rng.random(200) < 0.4
    opened = np.where(inside, log_p + 7.0 + 0.02 * rng.normal(size=200), -np.inf)
    columns = np.column_stack([log_p, opened, log_p + rng.normal(size=200)])

    def kinds(log_q: np.ndarray) -> list[bool]:
        n = len(log_q)
        verdict = np.zeros(n, dtype=np.int8)
        component = np.arange(n) % 3
        n_k = np.bincount(component, minlength=3)
        r = RoundDraws(n_k, 1.0, component, log_q, np.zeros(n), verdict)
        assert not restrictions([r._replace(counts=counts(n, 0, 0), component=0 * component)]).any()
        return restrictions([r]).tolist()

    assert kinds(columns) == [False, True, False]
    assert kinds(columns[~inside]) == [False, False, False], "not one draw that it can produce"
    assert kinds(columns[inside][:19]) == [False, False, False], "too few of them"


def with_own_hits(own_hits: int, log_p: float) -> RoundDraws:
    """One proposal full of hits of log-weight about -4; the target's own have log-probability ``log_p``, which
    the proposal cannot produce, and so a weight of 5."""
    n = np.array([200, 800])
    component = np.repeat([0, 1], n)
    log_q = np.column_stack([np.full(1000, log_p), np.full(1000, -60.0)])
    log_q[200:] = np.column_stack(
        [-12.0 + 0.1 * np.random.default_rng(5).normal(size=800), np.full(800, -8.0)]
    )
    verdict = np.zeros(1000, dtype=np.int8)
    verdict[:own_hits] = verdict[200:500] = 1
    return RoundDraws(n, 1.0, component, log_q, log_q[np.arange(1000), component], verdict)


def test_own_hits_corroborate_unless_only_the_target_finds_their_kind():
    missed = diagnose([with_own_hits(8, -5.0)], corrected=False)
    assert missed.reverse.missed_hits == missed.reverse.own_hits == 8
    assert missed.overlap.own == 0
    # So many draws of the target reach all that eight hits of theirs make likely; another alarm speaks up.
    assert "missed" in {r.alarm for r in hit_reasons(missed, ("t", "q"))}
    for own_hits, enough in ((4, False), (5, True), (8, True)):
        r = with_own_hits(own_hits, -5.0)
        r.log_q[:200] = r.log_q[200]
        d = diagnose([r], corrected=False)
        assert d.reverse.missed_hits == 0 and d.overlap.own == own_hits
        assert d.overlap.corroborated == enough
    # Five of a known kind and three that no proposal finds: the five still count.
    r = with_own_hits(8, -5.0)
    r.log_q[:5] = r.log_q[200]
    d = diagnose([r], corrected=False)
    assert d.reverse.missed_hits == 3 and d.overlap.own == 5 and d.overlap.corroborated


def test_the_order_of_proposals_does_not_matter():
    rng = np.random.default_rng(2)
    names = np.array(["t", "a", "b", "c", "d"])
    leaders = set()
    for _ in range(60):
        parts, n = random_hits(rng, 5)
        order = np.r_[0, 1 + rng.permutation(4)]
        place = np.argsort(order)
        moved = parts._replace(log_q=parts.log_q[:, order], component=place[parts.component])
        first, again = overlap(parts, n, own=1), overlap(moved, n[order], own=1)
        assert again.others == pytest.approx(first.others[order]) and again.own == first.own
        assert again.alone == pytest.approx(first.alone[order])
        assert again.hits.tolist() == first.hits[order].tolist()
        assert again.corroborated == first.corroborated
        if len(set(first.alone[1:])) == 4:
            assert names[order][again.leader] == names[first.leader]
            leaders.add(names[first.leader])
    assert len(leaders) > 1


@pytest.mark.parametrize("k", [1, 2, 4])
def test_what_is_left_without_a_component_is_unbiased(k):
    """Two rounds, the second planned by the first; the proposals are good, mild, too strong and half blind."""
    table, rng, values = five(5.8), np.random.default_rng(30 + k), []
    first = rounds_of(table, [40, 60, 50, 30, 40], 2000, rng, 0.4)
    for one in first:
        more = counts(40, 80, 60, 20, 40) + 3 * (int(one.harmful.sum()) % 5)
        rounds = without_component([one, table.draw(more, rng, 0.6)], k)
        values.append(event_mean(rounds, corrected=False).value)
    assert abs(unbiased(values, table.mu)) <= 3


def test_without_a_component_is_as_if_it_had_not_been_asked():
    table, rng = common(), np.random.default_rng(7)
    rounds = [table.draw(counts(30, 20, 10), rng, 0.3), table.draw(counts(0, 0, 40), rng, 0.2)]
    rounds.append(table.draw(counts(5, 0, 9), rng, 0.5))
    before = copy.deepcopy(rounds)
    left = without_component(rounds, 2)
    assert [r.counts.tolist() for r in left] == [[30, 20, 0], [5, 0, 0]], (
        "the round of its draws only is gone"
    )
    assert [r.mass for r in left] == [0.3, 0.5]
    for r, whole in zip(left, (rounds[0], rounds[2]), strict=True):
        rows = whole.component < 2
        for name in ("component", "log_q", "log_q_sample", "verdict"):
            assert np.array_equal(getattr(r, name), getattr(whole, name)[rows]), name
    for r, old in zip(rounds, before, strict=True):
        for x, y in zip(r, old, strict=True):
            assert np.array_equal(x, y), "its input was changed"
    assert without_component([rounds[1]], 2) == []
    assert [r.n for r in without_component(rounds, 1)] == [40, 40, 14]


# The refusal gate, whose proposals have known faults.


def gate_rounds(
    names: Sequence[str], gated: float, n: int, times: int, seed: int, own_share: float = 0.2
) -> Iterator[RoundDraws]:
    """``times`` independent rounds of n draws, a fifth of them the target's, of the event "any"."""
    tables = gate.tables(("target", *names), gated)
    own = round(n * own_share)
    sizes = np.array([own] + [(n - own) // len(names)] * len(names))
    component = np.repeat(np.arange(len(sizes)), sizes)
    rng = np.random.default_rng(seed)
    for _ in range(times):
        tokens = np.concatenate(
            [markov.draw(t, int(c), gate.LENGTH, rng) for t, c in zip(tables, sizes, strict=True)]
        )
        log_q = markov.log_prob(tables, tokens)
        verdict = gate.EVENTS["any"].of(tokens).astype(np.int8)
        yield RoundDraws(sizes, 1.0, component, log_q, log_q[np.arange(len(component)), component], verdict)


@cache
def gated_for(p: float) -> float:
    """The gate at which harm has probability p, to which it is proportional."""
    gated = gate.opened_for(p)
    assert gate.truth(gated) == pytest.approx(p, rel=1e-9)
    return gated


@cache
def diagnosed(names: tuple[str, ...], p: float, n: int = 2000, times: int = 200) -> list[Diagnostics]:
    return [diagnose([r], corrected=False) for r in gate_rounds(names, gated_for(p), n, times, 17)]


def corroborated(found: Sequence[Diagnostics]) -> float:
    return float(np.mean([d.overlap.corroborated for d in found]))


@pytest.mark.parametrize("p", [1e-4, 1e-6])
def test_two_good_proposals_corroborate_each_other(p):
    found = diagnosed(("good", "steered"), p)
    assert corroborated(found) >= 0.95
    assert np.mean([abs(d.estimate / p - 1) < 0.5 for d in found]) >= 0.95


@pytest.mark.parametrize("names", [("good",), ("missing",), ("good", "over")])
@pytest.mark.parametrize("p", [1e-4, 1e-6])
def test_a_single_way_of_finding_is_not_corroborated(names, p):
    """Right or four times too low: from its own draws the two look the same. The strongest is the one named."""
    found = diagnosed(names, p)
    assert corroborated(found) <= 0.05
    assert all(d.overlap.leader == 1 for d in found)
    right = [d.estimate / p for d in found]
    assert (np.median(right) < 1 / 3) == ("missing" in names)


def test_a_blind_proposal_and_an_over_steered_one_are_never_believed_together():
    """Few draws of the over-steered one are no second way. With more of them it does find the harm that both
    can see, which is all that corroboration asks; then its own uneven weights give the estimate away."""
    assert corroborated(diagnosed(("missing", "over"), 1e-4, 500)) <= 0.05
    assert corroborated(diagnosed(("missing", "over"), 1e-6, 500)) <= 0.05
    low = 0
    for r in gate_rounds(("missing", "over"), gated_for(1e-4), 2000, 200, 18):
        e = estimate_prompt("p", [r], ("t", "m", "o"), confidence=0.95, log_width=50.0, corrected=False)
        assert e.alarms and e.working is None
        low += e.estimate < 1e-4 / 3
    assert low > 100


def test_what_all_proposals_miss_alike_cannot_be_seen():
    """The limit of what draws can show: two blind to the same kind of harm agree, on a fifth of the truth."""
    found = diagnosed(("missing", "blind"), 1e-6)
    assert corroborated(found) >= 0.95
    assert np.mean([d.estimate < 1e-6 / 3 for d in found]) >= 0.95


def test_the_estimate_says_who_stands_alone():
    r = next(gate_rounds(("over", "good"), gated_for(1e-4), 2000, 1, 3))
    e = estimate_prompt("p", [r], ("t", "o", "g"), confidence=0.95, log_width=50.0, corrected=False)
    (reason,) = [text for a, text in zip(e.alarms, e.reasons, strict=True) if a == "uncorroborated"]
    assert "only 'g' finds this harm" in reason and "(0 harmful)" in reason
    pair = good_pair().draw(counts(200, 400, 400), np.random.default_rng(4))
    e = estimate_prompt("p", [pair], ("t", "a", "b"), confidence=0.95, log_width=50.0, corrected=False)
    assert e.estimate > 0 and "uncorroborated" not in e.alarms
