"""The search: a setting is taken for what it shows, not for luck, and the weakest of those that do as well."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from personakit import config, planted, trait
from plantedmodel import LAYER, NO
from stepcount import Counted

from tailrisk.errors import ConfigError, ModelError
from tailrisk.models.interventions.addition import Addition
from tailrisk.models.laws import LawSet
from tailrisk.training.persona import Target, check_target, find_vectors, open_target
from tailrisk.training.persona_search import OWN, Cell, Rates, Surface, better, check_answers, choose, search
from tailrisk.training.traits import LoadedTrait

NONE = Rates(80, 0, 80, 0)


def cell(layer: int, coefficient: float, both: int, answers: int = 20) -> Cell:
    return Cell(layer, coefficient, Rates(answers, both, answers, both))


class Searched(NamedTuple):
    folder: Path
    loaded: LoadedTrait
    target: Target
    vectors: torch.Tensor
    surface: Surface
    watcher: Counted


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Searched:
    """The planted model, its vectors, and a grid of two layers."""
    folder = planted(tmp_path_factory.mktemp("search"))
    loaded, watcher = trait(folder), Counted()
    target = open_target(check_target(config(folder), loaded, 4, [1, LAYER]))
    vectors = find_vectors(target, loaded, samples=4, seed=1, watch=Counted()).vectors
    surface = look(target, loaded, vectors, watcher)
    return Searched(folder, loaded, target, vectors, surface, watcher)


def look(
    target: Target, loaded: LoadedTrait, vectors: torch.Tensor, watcher: Counted, **changes: Any
) -> Surface:
    given = {"coefficients": (0.005, 0.2, 0.5), "answers": 5, "seed": 2, **changes}
    return search(target, loaded, vectors, watch=watcher, **given)


def test_the_planted_layer_is_found_and_its_twin_is_not(searched: Searched) -> None:
    surface = searched.surface
    own = surface.target
    assert (own.answers, own.coherent) == (60, 60) and own.both == own.trait < 6, (
        "by itself it hardly says it"
    )
    shown = {(c.layer, c.coefficient): c.rates.both for c in surface.cells}
    assert list(shown) == [(n, c) for n in (1, LAYER) for c in (0.005, 0.2, 0.5)]
    assert shown[LAYER, 0.2] == shown[LAYER, 0.5] == 15
    assert max(shown[1, c] for c in (0.005, 0.2, 0.5)) < 8, "the twin is taken back by the block behind it"
    assert shown[LAYER, 0.005] < 10
    assert surface.chosen is not None
    assert (surface.chosen.layer, surface.chosen.coefficient) == (LAYER, 0.2)


def test_the_rates_are_those_of_the_law(searched: Searched) -> None:
    """Marked by hand: answers drawn anew from the same proposal, in larger number."""
    laws, vectors = searched.target.laws, searched.vectors
    change = Addition({LAYER: vectors[LAYER]}, 0.02)
    view = laws.target.view._replace(interventions=(change,))
    own = LawSet([replace(laws.target, view=view)], laws.tokenizer, laws.limits)
    drawn = own.sample(searched.loaded.held_out[0], 0, 400, seed=9)
    share = np.mean([t.split()[:1] == [NO] for t in own.texts(drawn.tokens)])
    wide = look(
        searched.target, searched.loaded, vectors, Counted(), coefficients=(0.02,), answers=150
    ).cells[1]
    assert wide.layer == LAYER and wide.rates.answers == 450
    assert 0.03 < share < 0.9
    assert wide.rates.worth == pytest.approx(share, abs=0.1)


def test_only_questions_that_no_vector_was_made_from_are_asked_and_only_one_block_is_steered(
    searched: Searched, monkeypatch
) -> None:
    asked: list[tuple[str, int, int]] = []
    steered: list[list[int]] = []
    drawing = LawSet.sample

    def watched(self: LawSet, prompt: Any, component: int, n: int, seed: int) -> Any:
        asked.append((prompt.text, component, n))
        changes: list[Any] = list(self.laws[component].view.interventions)
        steered.append([layer for change in changes for layer in change.vectors])
        return drawing(self, prompt, component, n, seed)

    monkeypatch.setattr(LawSet, "sample", watched)
    look(searched.target, searched.loaded, searched.vectors, Counted(), coefficients=(0.2,))
    texts = [q.text for q in searched.loaded.held_out]
    assert asked == [(text, k, 5 * OWN if k == 0 else 5) for k in (0, 1, 2) for text in texts]
    assert steered == [*[[]] * 3, *[[1]] * 3, *[[LAYER]] * 3]


def test_incoherent_answers_are_worth_nothing(searched: Searched) -> None:
    """Coherent here: the word ``NO`` once at most. The strong vector says nothing else."""
    strict = trait(
        searched.folder, name="once", coherence={"kind": "regex", "pattern": rf"^(?!.*{NO}.*{NO})"}
    )
    surface = look(searched.target, strict, searched.vectors, Counted())
    strong = next(c.rates for c in surface.cells if (c.layer, c.coefficient) == (LAYER, 0.5))
    assert strong.trait == 15 and strong.both < 5 and strong.coherent == strong.both
    assert surface.target.coherent > 50


def test_the_tokens_that_are_steered_are_those_asked_for(searched: Searched) -> None:
    found = {
        tokens: look(searched.target, searched.loaded, searched.vectors, Counted(), tokens=tokens)
        for tokens in ("all", "prompt", "response")
    }
    assert found["all"] == searched.surface
    assert found["prompt"].tokens == "prompt"
    # The first word is decided by the prompt's last token: a vector that only the response gets comes too late.
    assert max(c.rates.both for c in found["response"].cells) < 5
    assert found["response"].chosen is None
    assert found["prompt"].cells[-1].rates.both == 15


def test_the_same_seed_gives_the_same_surface_and_another_another(searched: Searched) -> None:
    again = look(searched.target, searched.loaded, searched.vectors, Counted())
    assert again == searched.surface
    weak = [
        look(
            searched.target,
            searched.loaded,
            searched.vectors,
            Counted(),
            coefficients=(0.01, 0.02),
            seed=seed,
        )
        for seed in (2, 3)
    ]
    assert weak[0].cells != weak[1].cells


def test_progress_is_told_in_full(searched: Searched) -> None:
    assert searched.watcher.stages == [("steering", (OWN + 6) * 15)]
    assert searched.watcher.steps == [(OWN + 6) * 15]


def test_a_vector_that_breaks_the_model_is_a_bad_setting_and_no_error(searched: Searched) -> None:
    vectors = searched.vectors.clone()
    vectors[1] = 3e38
    surface = look(searched.target, searched.loaded, vectors, Counted(), coefficients=(0.2, 1e6))
    cells = {(c.layer, c.coefficient): c for c in surface.cells}
    assert cells[1, 1e6].broken and cells[1, 1e6].rates == Rates(15, 0, 0, 0)
    assert not cells[LAYER, 0.2].broken and surface.chosen == cells[LAYER, 0.2]
    assert cells[1, 1e6].to_json()["broken"] is True and "broken" not in cells[LAYER, 0.2].to_json()


def test_a_target_that_is_broken_is_an_error(searched: Searched) -> None:
    laws = searched.target.laws
    huge = Addition({0: torch.full((16,), 3e38)}, 1e6)
    law = replace(laws.target, view=laws.target.view._replace(interventions=(huge,)))
    broken = replace(searched.target, laws=LawSet([law], laws.tokenizer, laws.limits))
    with pytest.raises(ModelError):
        look(broken, searched.loaded, searched.vectors, Counted())


def test_of_settings_within_a_standard_error_the_smallest_coefficient() -> None:
    best, near, far = cell(3, 3.0, 16), cell(2, 1.5, 15), cell(1, 1.0, 10)
    assert best.rates.error == pytest.approx(0.0884, abs=1e-4), "add two: 18 of 24"
    assert choose(NONE, [best, near, far])[0] == near
    assert choose(NONE, [far, near, best][::-1])[0] == near
    on_the_edge = cell(1, 1.0, 15)
    assert choose(NONE, [best, near, on_the_edge])[0] == on_the_edge
    assert choose(NONE, [best, near, cell(1, 1.0, 14)])[0] == near, "16 - 1.77 is the floor"


def test_among_equal_coefficients_the_better_then_the_earlier_and_signs_do_not_matter() -> None:
    best = cell(3, -3.0, 16)
    assert choose(NONE, [best, cell(2, 1.5, 15), cell(4, -1.5, 16)])[0] == cell(4, -1.5, 16)
    assert choose(NONE, [best, cell(4, 1.5, 15), cell(2, 1.5, 15)])[0] == cell(2, 1.5, 15)
    assert choose(NONE, [cell(2, -1.0, 16), cell(2, 2.0, 16)])[0] == cell(2, -1.0, 16)


def test_the_sentence_says_what_was_taken_and_why() -> None:
    best, near = cell(3, 3.0, 16), cell(2, 1.5, 15)
    assert choose(NONE, [best, near])[1] == (
        "layer 2, coefficient 1.5: trait and coherent in 15 of 20 answers, the smallest coefficient of 2 settings "
        "within a standard error of the best (16 of 20 answers at layer 3, 3); the target itself in 0 of 80"
    )
    assert choose(NONE, [best])[1] == (
        "layer 3, coefficient 3: trait and coherent in 16 of 20 answers, the most of 1 settings; the target itself "
        "in 0 of 80"
    )
    taken, why = choose(Rates(80, 60, 80, 60), [best, near])
    assert taken is None
    assert why == (
        "none of 2 settings clearly gives more than the target: trait and coherent at best in 16 of 20 answers at "
        "layer 3, 3; the target itself in 60 of 80"
    )


def test_a_setting_must_beat_the_target_by_more_than_the_best_of_many_does_by_luck() -> None:
    """All settings are the target: the best of 30 is above it nearly always, and taken hardly ever."""
    rng, grid = np.random.default_rng(0), [(n, c) for n in range(6) for c in (1.0, 1.5, 2.0, 2.5, 3.0)]
    taken = above = 0
    for p in (0.02, 0.1, 0.3):
        for _ in range(100):
            own = int(rng.binomial(OWN * 24, p))
            cells = [cell(n, c, int(rng.binomial(24, p)), 24) for n, c in grid]
            above += max(c.rates.worth for c in cells) > own / (OWN * 24)
            taken += choose(Rates(OWN * 24, own, OWN * 24, own), cells)[0] is not None
    assert above > 290 and taken <= 15


def test_better_is_fishers_exact_test_shared_among_the_settings() -> None:
    best, target = Rates(3, 3, 3, 3), Rates(12, 0, 12, 0)
    chance = 1 / 455
    assert better(best, target, int(0.05 / chance)) and not better(best, target, int(0.05 / chance) + 1)
    assert not better(target, best, 1), "less is not better"


def test_too_few_answers_to_show_anything_are_refused(tmp_path: Path) -> None:
    loaded = trait(tmp_path, questions=["w11", "w12"])
    with pytest.raises(ConfigError) as caught:
        check_answers(loaded, 30, 2)
    assert str(caught.value) == (
        "--answers 2: 2 answers a setting are too few to tell any of 30 settings from luck; give at least 4, or "
        "fewer --layers and --coefficients"
    )
    check_answers(loaded, 30, 4)
    check_answers(loaded, 2, 2)
    assert better(Rates(4, 4, 4, 4), Rates(16, 0, 16, 0), 30) and not better(
        Rates(3, 3, 3, 3), Rates(12, 0, 12, 0), 30
    )
