"""The rule: each limit cuts what it should, the lowest bypass score wins, and the reasons are told."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from tailrisk.errors import ConfigError, ModelError
from tailrisk.training.selection import Candidate, Limits, choose, cut_counts, deepest, why

LIMITS = Limits(layers=10)
GOOD = Candidate(layer=4, position=-1, token="a", length=1.0, bypass=-2.0, induce=1.0, kl=0.05)
DEEP = replace(GOOD, layer=10, bypass=-9.0)
FAR = replace(GOOD, layer=5, bypass=-8.0, kl=0.1)
MUTE = replace(GOOD, layer=6, bypass=-7.0, induce=0.0)
BROKEN = replace(GOOD, layer=7, bypass=math.nan)
WEAK = replace(GOOD, layer=8, bypass=-1.0)


@pytest.mark.parametrize(
    ("candidate", "cut"),
    [
        (GOOD, ()),
        (DEEP, ("depth",)),
        (replace(DEEP, layer=9), ()),
        (FAR, ("kl",)),
        (replace(FAR, kl=math.nextafter(0.1, 0)), ()),
        (MUTE, ("induce",)),
        (replace(MUTE, induce=1e-9), ()),
        (BROKEN, ("finite",)),
        (replace(GOOD, kl=math.inf), ("finite",)),
        (replace(DEEP, kl=1.0, induce=-1.0), ("depth", "kl", "induce")),
    ],
)
def test_each_limit_cuts_what_it_should(candidate: Candidate, cut: tuple[str, ...]) -> None:
    assert LIMITS.cuts(candidate) == cut


@pytest.mark.parametrize("order", [1, -1])
def test_the_lowest_bypass_among_those_that_pass_wins(order: int) -> None:
    listed = [WEAK, DEEP, FAR, GOOD, MUTE, BROKEN][::order]
    found = choose(listed, LIMITS)
    assert (found.candidate, found.passing, found.relaxed) == (GOOD, 2, ())
    assert cut_counts(listed, LIMITS) == {"depth": 1, "finite": 1, "kl": 1, "induce": 1}


def test_among_equals_the_earlier_layer_and_the_later_token() -> None:
    listed = [replace(GOOD, layer=5), replace(GOOD, position=-3), GOOD]
    assert choose(listed, LIMITS).candidate == GOOD


def test_where_none_passes_the_error_says_what_cut_and_how_near_it_came() -> None:
    with pytest.raises(ModelError) as caught:
        choose([DEEP, FAR, replace(FAR, kl=0.3), MUTE], LIMITS)
    text = str(caught.value)
    assert "of 4 candidates" in text
    assert "1 lie in the last blocks, from 10 on" in text
    assert "2 fail KL < 0.1 (smallest KL 0.05)" in text
    assert "1 do not induce refusal (highest score 1," in text
    assert "--relax" in text and "--max-kl" in text


def test_no_candidates_at_all() -> None:
    with pytest.raises(ModelError, match="same mean activations"):
        choose([], LIMITS)


def test_relaxing_doubles_the_kl_first() -> None:
    found = choose(
        [DEEP, replace(FAR, kl=0.35), replace(FAR, kl=0.39, bypass=-9.0), MUTE], LIMITS, relax=True
    )
    assert found.used == replace(LIMITS, max_kl=0.4)
    assert found.candidate.kl == 0.39, "both are below the new limit; the lower bypass wins"
    assert found.relaxed == ("KL 0.1 to 0.4",)


def test_then_induced_refusal_is_given_up_with_the_kl_as_asked() -> None:
    found = choose([DEEP, MUTE, replace(MUTE, kl=0.5, bypass=-20.0)], LIMITS, relax=True)
    assert found.candidate == MUTE
    assert found.relaxed == ("induced refusal",)
    found = choose([replace(MUTE, kl=0.5)], LIMITS, relax=True)
    assert found.relaxed == ("induced refusal", "KL 0.1 to 0.8")


def test_the_depth_is_never_given_up_nor_broken_models_taken() -> None:
    with pytest.raises(ModelError, match="no direction passes"):
        choose([DEEP, BROKEN], LIMITS, relax=True)


def test_a_rule_that_passes_is_not_relaxed() -> None:
    assert choose([GOOD, FAR], LIMITS, relax=True).used == LIMITS


def test_the_sentence_names_choice_reason_and_what_was_given_up() -> None:
    found = choose([GOOD, FAR, WEAK], LIMITS)
    assert why(found, 3, 8.2) == (
        "chosen: layer 4, position -1 ('a'): lowest refusal score -2.00 (target 8.20) among 2 of 3 candidates "
        "with KL < 0.1 and induced refusal"
    )
    found = choose([MUTE], LIMITS, relax=True)
    assert why(found, 1, 8.2).endswith("among 1 of 1 candidates with KL < 0.1; relaxed: induced refusal")


def test_a_limit_that_nothing_can_meet_is_refused() -> None:
    for limit in (0.0, -1.0, math.nan):
        with pytest.raises(ConfigError, match="--max-kl"):
            Limits(layers=3, max_kl=limit)


def test_four_fifths_of_the_depth_as_inputs_of_blocks() -> None:
    # Published: directions at block inputs l < 0.8 L; the output of block l is the input of block l + 1.
    assert [deepest(n) for n in (1, 2, 5, 10, 30, 32)] == [1, 1, 3, 7, 23, 25]
