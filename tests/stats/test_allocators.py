"""One suite of checks for every allocation rule, and each rule's own optimum."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrisk.errors import ConfigError
from tailrisk.stats import ALLOCATORS, PromptNeeds, get_allocator
from tailrisk.stats.allocators.needs import fill, known_rel_var


def needs_of(rel_var, cost, wanted, drawn) -> PromptNeeds:
    return PromptNeeds(
        np.array(rel_var, dtype=float),
        np.array(cost, dtype=float),
        np.array(wanted, dtype=np.int64),
        np.array(drawn, dtype=np.int64),
    )


def check_allocator(allocate, needs: PromptNeeds, draws: int) -> None:
    """What holds for every rule: whole, not negative, never more than wanted, all that can be given, pure."""
    counts = allocate(needs, draws)
    assert counts.dtype == np.int64 and counts.shape == needs.wanted.shape
    assert (counts >= 0).all() and (counts <= needs.wanted).all()
    assert counts.sum() == min(draws, needs.wanted.sum())
    assert (allocate(needs, draws) == counts).all()
    more = allocate(needs, draws + 7)
    assert more.sum() >= counts.sum()


prompt = st.tuples(
    st.one_of(st.just(float("nan")), st.floats(0, 1e9)),
    st.floats(0.5, 500),
    st.integers(0, 5000),
    st.integers(0, 5000),
)


@pytest.mark.parametrize("name", sorted(ALLOCATORS))
@given(prompts=st.lists(prompt, min_size=1, max_size=30), draws=st.integers(0, 20_000))
@settings(max_examples=150, deadline=None)
def test_conformance(name, prompts, draws):
    check_allocator(get_allocator(name), needs_of(*zip(*prompts, strict=True)), draws)


def test_unknown_objective():
    with pytest.raises(ConfigError, match=r"budget\.objective.*'fastest'.*relative, uniform"):
        get_allocator("fastest")


def test_relative_follows_the_square_root_rule():
    counts = get_allocator("relative")(needs_of([4, 16, 64], [1, 1, 1], [10**6] * 3, [0, 0, 0]), 700)
    assert counts.tolist() == [100, 200, 400]
    counts = get_allocator("relative")(needs_of([9, 9], [1, 9], [10**6] * 2, [0, 0]), 400)
    assert counts.tolist() == [300, 100]


def test_relative_counts_what_was_drawn_and_gives_the_best_sum():
    """No exchange of a draw between two prompts makes the sum of squared relative errors smaller."""
    rng = np.random.default_rng(1)
    v, drawn = rng.exponential(size=12) * 50, rng.integers(20, 60, size=12)
    counts = get_allocator("relative")(needs_of(v, np.ones(12), [200] * 12, drawn), 900)
    best = (v / (drawn + counts)).sum()
    for i in range(12):
        for j in range(12):
            trial = counts.copy()
            trial[i] -= 1
            trial[j] += 1
            if i != j and trial.min() >= 0 and trial.max() <= 200:
                assert (v / (drawn + trial)).sum() >= best - 1e-3


def test_prompts_without_hits_count_as_the_hardest():
    needs = needs_of([5.0, np.nan, 80.0, np.nan], np.ones(4), [10**6] * 4, [60, 60, 60, 900])
    assert known_rel_var(needs).tolist() == [5.0, 80.0, 80.0, 900.0]
    assert known_rel_var(needs_of([np.nan], [1], [10], [0])).tolist() == [1.0]


def test_uniform_is_even_and_passes_on_what_is_not_wanted():
    assert (
        get_allocator("uniform")(needs_of([1, 2, 3], [1, 9, 1], [100] * 3, [5, 0, 0]), 90).tolist()
        == [30] * 3
    )
    assert get_allocator("uniform")(needs_of([1, 2, 3], [1, 1, 1], [10, 0, 100], [0, 0, 0]), 90).tolist() == [
        10,
        0,
        80,
    ]


def test_fill_keeps_proportions_of_totals():
    assert fill(np.array([1.0, 1.0]), np.array([30.0, 10.0]), np.array([100, 100]), 40).tolist() == [10, 30]
    assert fill(np.array([1.0, 1.0]), np.array([90.0, 10.0]), np.array([100, 100]), 40).tolist() == [0, 40]
    assert fill(np.array([0.0, 2.0]), np.zeros(2), np.array([50, 10]), 30).tolist() == [20, 10]


def test_many_prompts_are_quick():
    rng = np.random.default_rng(0)
    c = 100_000
    needs = needs_of(
        rng.exponential(size=c), np.ones(c), rng.integers(0, 500, size=c), rng.integers(0, 100, size=c)
    )
    for name in ALLOCATORS:
        check_allocator(get_allocator(name), needs, 3_000_000)
