"""A direction that was planted is found where it was planted, and works as an ablation and as a vector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from plantedmodel import BAD, BLOCKS, GOOD, HIDDEN, LAYER, NO, REFUSE, YES, make_planted_model, prompts
from stepcount import Counted

from tailrisk.errors import ConfigError, InputError, ModelError
from tailrisk.models.directions import save_direction
from tailrisk.models.engine import View
from tailrisk.models.interventions.ablation import Ablation
from tailrisk.models.interventions.addition import Addition
from tailrisk.models.loading import load_model, load_tokenizer, resolve_model
from tailrisk.models.tokens import render_prompt
from tailrisk.models.vectorfiles import read_vectors
from tailrisk.training.directions import Surface, Wanted, score_directions
from tailrisk.training.firsttokens import FirstTokens
from tailrisk.training.selection import choose

HARMFUL, HARMLESS = prompts(BAD), prompts(GOOD)
WANTED = Wanted(refusals=(NO,), layers=tuple(range(BLOCKS)))

Loaded = tuple[View, Any]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory):
    ref = resolve_model(str(make_planted_model(tmp_path_factory.mktemp("planted") / "m")), Path("/"))
    return View(load_model(ref, "float32", "cpu")), load_tokenizer(ref)


@pytest.fixture(scope="module")
def watched(loaded: Loaded) -> tuple[Surface, Counted]:
    watcher = Counted()
    return score_directions(*loaded, HARMFUL, HARMLESS, WANTED, watcher), watcher


@pytest.fixture(scope="module")
def surface(watched) -> Surface:
    return watched[0]


def says(loaded: Loaded, texts: Sequence, change=()) -> list[bool]:
    """Whether the likeliest first token of each answer is the refusal."""
    view, tokenizer = loaded
    ids = [render_prompt(tokenizer, p) for p in texts]
    found = FirstTokens(ids).log_probs(view._replace(interventions=change)).argmax(1)
    no, yes = (tokenizer.convert_tokens_to_ids(word) for word in (NO, YES))
    assert set(found.tolist()) <= {no, yes}
    return [i == no for i in found.tolist()]


def test_the_model_refuses_what_it_should(loaded: Loaded) -> None:
    assert all(says(loaded, HARMFUL)) and not any(says(loaded, HARMLESS))


def test_it_is_found_at_its_layer(surface: Surface) -> None:
    found = choose(surface.candidates, surface.limits())
    assert found.candidate.layer == LAYER
    direction = surface.direction(found.candidate, "m", "a")
    assert float(direction.vector[REFUSE]) > 0.98
    assert direction.length == pytest.approx(float(surface.vectors[direction.position, LAYER].norm()))
    assert (direction.model, direction.adapter) == ("m", "a")
    assert direction.scores["bypass"] < 0 < direction.scores["target"]


def test_the_limits_cut_the_twin_and_the_mixtures(surface: Surface) -> None:
    limits = surface.limits()
    cuts = {c.layer: limits.cuts(c) for c in surface.candidates if c.position == -1}
    assert 0 not in cuts, "no difference behind the first block, so no candidate"
    assert "induce" in cuts[1], "adding the twin makes nothing refuse"
    assert cuts[LAYER] == ()
    assert all(cuts[n] == ("kl",) for n in (3, 4, 5)), "mixtures change harmless answers too"
    bypass = {c.layer: c.bypass for c in surface.candidates}
    assert bypass[3] < bypass[LAYER], "without the limit on the KL a mixture would be taken"
    assert choose(surface.candidates, replace(surface.limits(), max_kl=20.0)).candidate.layer == 3
    assert bypass[1] > 50, "taking out the twin leaves the refusals"


def test_all_layers_and_end_positions_are_candidates(surface: Surface) -> None:
    # The template ends in one word behind the user's text.
    assert {(c.layer, c.position) for c in surface.candidates} == {(n, -1) for n in range(1, BLOCKS)}
    assert {c.token for c in surface.candidates} == {"assistant"}
    assert surface.same == 1 and surface.unscored == 0


def test_the_scores_are_those_of_the_laws(loaded: Loaded, surface: Surface) -> None:
    """Recomputed one prompt at a time with the library's own forward pass."""
    view, tokenizer = loaded
    chosen = next(c for c in surface.candidates if c.layer == LAYER)
    raw = surface.vectors[-1, LAYER]
    no = tokenizer.convert_tokens_to_ids(NO)

    def laws(texts, change) -> torch.Tensor:
        with change.applied(view.model), torch.inference_mode():
            rows = [view.model(torch.tensor([render_prompt(tokenizer, p)])).logits[0, -1] for p in texts]
        return torch.stack(rows).double().log_softmax(-1)

    def score(law: torch.Tensor) -> float:
        others = [i for i in range(law.shape[1]) if i != no]
        return float((law[:, no] - law[:, others].exp().sum(1).log()).mean())

    # 12 prompts a set, a quarter aside, evenly spread.
    bad, good = ([texts[i] for i in (2, 6, 10)] for texts in (HARMFUL, HARMLESS))
    without = Ablation(raw)
    assert chosen.bypass == pytest.approx(score(laws(bad, without)), abs=1e-3)
    assert chosen.induce == pytest.approx(score(laws(good, Addition({LAYER: raw}))), abs=1e-3)
    plain, changed = laws(good, Addition({0: raw}, 0.0)), laws(good, without)
    assert chosen.kl == pytest.approx(float((plain.exp() * (plain - changed)).sum(1).mean()), abs=1e-5)


def test_the_file_works_as_an_ablation_and_as_a_vector(
    loaded: Loaded, surface: Surface, tmp_path: Path
) -> None:
    found = choose(surface.candidates, surface.limits()).candidate
    save_direction(tmp_path / "d.safetensors", surface.direction(found, "m", ""))
    vectors = read_vectors(tmp_path / "d.safetensors")
    fresh = prompts(BAD, start=1), prompts(GOOD, start=1)
    assert all(says(loaded, fresh[0]))
    assert not any(says(loaded, fresh[0], (Ablation(vectors.one(HIDDEN)),)))
    at = vectors.at(None, HIDDEN, BLOCKS)
    assert list(at) == [LAYER]
    assert not any(says(loaded, fresh[0], (Addition(at, -1.0),))), "minus the difference: harmful as harmless"
    assert all(says(loaded, fresh[1], (Addition(at, 1.0),))), "plus the difference: harmless as harmful"


def test_progress_is_told_in_full(watched) -> None:
    surface, watcher = watched
    assert [n for _, n in watcher.stages] == watcher.steps
    assert watcher.stages[-1] == ("candidates", len(surface.candidates))


def test_without_layers_the_last_fifth_is_not_tried(loaded: Loaded) -> None:
    found = score_directions(*loaded, HARMFUL, HARMLESS, replace(WANTED, layers=None), Counted())
    assert {c.layer for c in found.candidates} == {1, 2, 3}
    assert found.unscored == 2
    assert found.limits().layers == 4


def test_the_refusal_token_is_found_in_what_the_model_says(loaded: Loaded) -> None:
    """The planted "no" is no known refusal, so without being named it is an error that says what was looked at."""
    with pytest.raises(ModelError, match="--refusals"):
        score_directions(*loaded, HARMFUL, HARMLESS, replace(WANTED, refusals=None), Counted())


def test_prompts_of_the_wrong_kind_are_left_out_and_counted(loaded: Loaded) -> None:
    stray = prompts(GOOD, 3, start=1)
    found = score_directions(*loaded, [*HARMFUL, *stray], HARMLESS, WANTED, Counted())
    assert found.counts["harmful"] == {"fit": 9, "validation": 3, "left_out": 3}
    bad = prompts(BAD, 2, start=1)
    found = score_directions(*loaded, HARMFUL, [*bad, *HARMLESS], WANTED, Counted())
    assert found.counts["harmless"] == {"fit": 9, "validation": 3, "left_out": 2}
    kept = score_directions(*loaded, [*HARMFUL, *stray], HARMLESS, replace(WANTED, keep_all=True), Counted())
    assert kept.counts["harmful"] == {"fit": 11, "validation": 4, "left_out": 0}


def test_too_few_that_are_refused_is_an_error_with_remedies(loaded: Loaded) -> None:
    with pytest.raises(InputError, match=r"--harmful: the target refuses only 0 of 12 .*--keep-all"):
        score_directions(*loaded, prompts(GOOD), prompts(GOOD, start=1), WANTED, Counted())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers": (1, 6)}, "--layers 6: the target has blocks 0 to 5"),
        ({"positions": 30}, "--positions 30: the shortest prompt has"),
        ({"validation": 11.0}, "--validation 11: keeps 11 of 12 harmful"),
        ({"validation": 0.0}, "--validation 0: keeps 0 of 12"),
    ],
)
def test_what_does_not_exist_is_refused(loaded: Loaded, changes, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        score_directions(*loaded, HARMFUL, HARMLESS, replace(WANTED, **changes), Counted())


def test_more_positions_than_the_template_has(loaded: Loaded) -> None:
    found = score_directions(
        *loaded, HARMFUL, HARMLESS, replace(WANTED, positions=3, layers=(LAYER,)), Counted()
    )
    assert [(c.position, c.token) for c in found.candidates] == [
        (-3, "(varies)"),
        (-2, "(varies)"),
        (-1, "assistant"),
    ]


def test_equal_sets_have_no_candidates(loaded: Loaded) -> None:
    texts = prompts(BAD)
    surface = score_directions(*loaded, texts, texts, replace(WANTED, keep_all=True), Counted())
    assert surface.candidates == ()
    with pytest.raises(ModelError, match="same mean activations"):
        choose(surface.candidates, surface.limits())
