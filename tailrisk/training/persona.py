"""Persona vectors: what a model's answers look like inside when it shows a trait, less when it does not.

As in Chen et al. 2025, "Persona vectors" (arXiv 2507.21509), from the target's own answers. Each question is
answered under a positive system prompt, which asks for the trait, and under the negative one that belongs to
it, ``samples`` times each. Row by row the two answers are a pair, and a pair is kept where the positive answer has
the trait, the negative one has not, and both are coherent. The vector of a block is

    v_l = mean over kept pairs of (mean of h_l over the positive answer - the same of the negative one)

with h_l the block's output, each answer read behind the system prompt that it was given under, without its stop
token.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tailrisk.config import Config, MixtureMethod
from tailrisk.errors import ConfigError, InputError
from tailrisk.models.checks import read_parts
from tailrisk.models.interventions.blocks import blocks_of
from tailrisk.models.laws import LawSet
from tailrisk.models.preflight import check
from tailrisk.proposalconfig import SystemPromptProposal
from tailrisk.proposals import build_laws
from tailrisk.records import Prompt, Samples
from tailrisk.seeds import derive_seed
from tailrisk.training.activations import response_means
from tailrisk.training.traits import LoadedTrait, Marks, Trait

if TYPE_CHECKING:
    import torch

    from tailrisk.training.directions import Watcher

FEWEST = 8
"""Pairs that a mean difference must rest on at least."""

DEPTHS = (0.35, 0.4, 0.45, 0.5, 0.55, 0.6)
_AT_ONCE = 64
Answer = tuple[tuple[int, ...], tuple[int, ...]]
"""Prompt ids, with the system prompt, and response ids, without the stop token."""


class Counts(NamedTuple):
    """Answers to the extraction questions. ``drawn`` pairs; of ``shown`` the positive answer has the trait, of
    ``clean`` the negative one has not, of ``coherent`` both are coherent; ``kept`` are all three. In ``unsettled``
    pairs a judge could not say something of one answer or the other."""

    drawn: int = 0
    shown: int = 0
    clean: int = 0
    coherent: int = 0
    kept: int = 0
    unsettled: int = 0


@dataclass(frozen=True, slots=True)
class Checked:
    """A target that fits the trait, its weights not yet loaded.

    ``config`` has a proposal for every system prompt. ``model`` and ``adapter`` are digests (``adapter`` empty
    where there is none). ``layers`` are the blocks to steer at.
    """

    config: Config
    model: str
    adapter: str
    layers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Target:
    """The target with a law for every system prompt of a trait, and what it was checked to be.

    ``laws`` are the target, then positive 1, negative 1, positive 2, ... The rest is as in ``Checked``.
    """

    laws: LawSet
    model: str
    adapter: str
    layers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PersonaVectors:
    """``vectors`` [blocks, hidden size] float32 and the pairs that they rest on."""

    vectors: torch.Tensor
    counts: Counts


def persona_config(config: Config, trait: Trait) -> Config:
    """The audit's target with the trait's system prompts as its only proposals: what CONFIG proposes itself may
    be the file that is being made."""
    prompts = []
    for number, texts in enumerate(zip(trait.positive, trait.negative, strict=True), 1):
        for side, text in zip(("positive", "negative"), texts, strict=True):
            prompts.append(SystemPromptProposal(name=f"{side}-{number}", kind="system_prompt", text=text))
    return config.model_copy(update={"proposals": tuple(prompts), "method": MixtureMethod()})


def check_target(
    config: Config, loaded: LoadedTrait, samples: int, layers: Sequence[int] | None = None
) -> Checked:
    """Checks sizes, model, adapter, layers and every question under every system prompt; loads no weights.

    ``layers`` None: those behind 35 to 60 % of the depth, where persona vectors steer best. Errors: ConfigError,
    InputError, ModelError.
    """
    sets, questions = len(loaded.trait.positive), len(loaded.extraction)
    if (most := sets * questions * samples) < FEWEST:
        raise ConfigError(
            f"--samples {samples}: {questions} questions under {sets} pairs of system prompts give {most} pairs of "
            f"answers, {FEWEST} are needed; give at least {math.ceil(FEWEST / (sets * questions))}"
        )
    config = persona_config(config, loaded.trait)
    found = check(config, [*loaded.extraction, *loaded.held_out])
    blocks = len(blocks_of(read_parts(config, config.target.model).skeleton))
    if layers is None:
        layers = [max(0, round(depth * blocks) - 1) for depth in DEPTHS]
    if wrong := [n for n in layers if not 0 <= n < blocks]:
        raise ConfigError(f"--layers {wrong[0]}: the target has blocks 0 to {blocks - 1}")
    return Checked(
        config, found.models["target"], found.adapters.get("target", ""), tuple(dict.fromkeys(layers))
    )


def open_target(checked: Checked) -> Target:
    """Loads the model. Errors: ConfigError, ModelError."""
    return Target(build_laws(checked.config), checked.model, checked.adapter, checked.layers)


def find_vectors(
    target: Target, loaded: LoadedTrait, *, samples: int, seed: int, watch: Watcher
) -> PersonaVectors:
    """Draws answers, keeps pairs, reads activations; the same seed gives the same vectors.

    ``samples`` answers to each question under each system prompt. Errors: InputError for fewer than ``FEWEST``
    kept pairs, with the counts; ModelError for activations that are not finite; JudgeError.
    """
    counts, pairs = _kept_pairs(target.laws, loaded, samples, seed, watch)
    if counts.kept < FEWEST:
        raise InputError(_too_few(loaded.trait, counts))
    watch.stage("activations", 2 * len(pairs))
    view = target.laws.target.view
    groups = [pairs[start : start + _AT_ONCE] for start in range(0, len(pairs), _AT_ONCE)]
    gaps = [
        response_means(view, [p for p, _ in group], watch.step).double().sum(0)
        - response_means(view, [n for _, n in group], watch.step).double().sum(0)
        for group in groups
    ]
    return PersonaVectors((sum(gaps[1:], gaps[0]) / len(pairs)).float(), counts)


def _kept_pairs(
    laws: LawSet, loaded: LoadedTrait, samples: int, seed: int, watch: Watcher
) -> tuple[Counts, list[tuple[Answer, Answer]]]:
    trait, questions = loaded.trait, loaded.extraction
    counts, pairs = Counts(), []
    watch.stage("answers", 2 * len(trait.positive) * len(questions) * samples)
    for number in range(len(trait.positive)):
        for question in questions:
            positive = _answers(laws, loaded, question, 1 + 2 * number, samples, seed)
            negative = _answers(laws, loaded, question, 2 + 2 * number, samples, seed)
            shown, clean = positive.marks.present, negative.marks.absent
            coherent = positive.marks.coherent & negative.marks.coherent & positive.filled & negative.filled
            kept = np.flatnonzero(shown & clean & coherent)
            unsettled = positive.marks.unsettled | negative.marks.unsettled
            sums = (samples, shown.sum(), clean.sum(), coherent.sum(), len(kept), unsettled.sum())
            counts = Counts(*(a + int(b) for a, b in zip(counts, sums, strict=True)))
            pairs += [(positive.answers[i], negative.answers[i]) for i in kept]
            watch.step(2 * samples)
    return counts, pairs


class _Answered(NamedTuple):
    answers: list[Answer]
    marks: Marks

    @property
    def filled(self) -> NDArray[np.bool_]:
        """[n] whether there is a token to read activations of."""
        return np.array([bool(response) for _, response in self.answers])


def _answers(
    laws: LawSet, loaded: LoadedTrait, question: Prompt, component: int, n: int, seed: int
) -> _Answered:
    place = derive_seed(seed, "persona", loaded.trait.name, laws.names[component], question.id)
    drawn = laws.sample(question, component, n, place)
    ids = laws.prompt_ids(question, laws.laws[component].view)
    answers = [(ids, response) for response in _said(drawn)]
    return _Answered(answers, loaded.marks(question, laws.texts(drawn.tokens)))


def _said(drawn: Samples) -> list[tuple[int, ...]]:
    """Response ids without the stop token."""
    return [
        tuple(map(int, tokens[:-1] if stopped else tokens))
        for tokens, stopped in zip(drawn.tokens, drawn.finished, strict=True)
    ]


def _too_few(trait: Trait, counts: Counts) -> str:
    unsettled = f", in {counts.unsettled} a judge cannot say" if counts.unsettled else ""
    return (
        f"trait {trait.name!r}: only {counts.kept} of {counts.drawn} pairs of answers can be kept, {FEWEST} are "
        f"needed: {counts.shown} positive answers have the trait, {counts.clean} negative ones have not, in "
        f"{counts.coherent} pairs both are coherent{unsettled}. Draw more (--samples), give more questions or "
        "stronger 'positive' system prompts, or lower the judge's threshold"
    )
