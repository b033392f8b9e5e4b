"""The refusal direction of a target: differences of means, each scored as a proposal would use it.

As in "Refusal in language models is mediated by a single direction" (Arditi et al. 2024, arXiv 2406.11717): a
candidate is the mean activation of harmful prompts minus that of harmless ones, behind one block, at one of the
tokens between the user's text and the answer. On prompts kept aside it is taken out (the published form, at every
block) and added (at its own block, all tokens, its raw length), and the first token of the answer is looked at.
``selection`` then chooses. As published, harmful prompts that the target answers and harmless ones that it
refuses are left out first: they say the opposite of their set.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch

from tailrisk.errors import ConfigError, InputError
from tailrisk.models.directions import Direction
from tailrisk.models.engine import View
from tailrisk.models.interventions.ablation import Ablation
from tailrisk.models.interventions.addition import Addition
from tailrisk.models.interventions.blocks import blocks_of
from tailrisk.models.tokens import render_prompt
from tailrisk.training.activations import prompt_means
from tailrisk.training.firsttokens import FirstTokens, divergence, refusal_scores
from tailrisk.training.openers import RefusalToken, end_positions, refusal_tokens
from tailrisk.training.selection import Candidate, Limits, deepest
from tailrisk.training.sizes import LEAST_PROMPTS, aside_of, check_sizes

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from tailrisk.records import Prompt

Ids = tuple[int, ...]
# A difference that is rounding only: relative to the activations themselves.
_NOTHING = 1e-6


class Watcher(Protocol):
    """Told of every stage of the work, by name and number of steps, and of the steps done."""

    def stage(self, name: str, steps: int) -> None: ...

    def step(self, n: int = 1) -> None: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """What to try. ``validation``: the share of each set that is kept aside, or from 1 on its number of prompts.
    ``layers`` (block outputs) None: those in the first 80 % of the depth. ``positions`` None: all tokens behind
    the user's text, at most 8. ``refusals`` None: found in what the model says. ``keep_all``: leave no prompt out.
    """

    validation: float = 0.25
    layers: tuple[int, ...] | None = None
    positions: int | None = None
    refusals: tuple[str, ...] | None = None
    keep_all: bool = False


class Split(NamedTuple):
    """A prompt set, rendered: ``fit`` gives the means, ``aside`` the scores; ``dropped`` were left out."""

    fit: list[Ids]
    aside: list[Ids]
    dropped: int


@dataclass(frozen=True, kw_only=True)
class Surface:
    """All candidates with their scores, and what is needed to read them.

    ``vectors`` [positions, layers, hidden size] float64: raw differences of means, the last token at -1.
    ``refused`` and ``harmless_refused``: the target's own mean refusal scores on the prompts kept aside.
    ``unscored``: candidates in the last blocks, which the rule excludes. ``same``: places where the means agree.
    """

    candidates: tuple[Candidate, ...]
    vectors: torch.Tensor
    tokens: tuple[RefusalToken, ...]
    refused: float
    harmless_refused: float
    blocks: int
    layers: int
    unscored: int
    same: int
    counts: dict[str, dict[str, int]]

    def limits(self, max_kl: float | None = 0.1) -> Limits:
        """The published limits for this model, or for the layers that were asked for."""
        return Limits(layers=self.layers, max_kl=max_kl)

    def direction(self, chosen: Candidate, model: str, adapter: str) -> Direction:
        """The candidate's vector with its origin; ``model`` and ``adapter`` are digests."""
        raw = self.vectors[chosen.position, chosen.layer]
        scores = {"bypass": chosen.bypass, "induce": chosen.induce, "kl": chosen.kl, "target": self.refused}
        unit = (raw / raw.norm()).float()
        return Direction(unit, chosen.layer, chosen.length, model, adapter, chosen.position, scores)

    def to_json(self, limits: Limits) -> dict[str, Any]:
        """Plain values: every candidate with what cuts it."""
        return {
            "target": {"harmful": self.refused, "harmless": self.harmless_refused},
            "refusal_tokens": [t._asdict() for t in self.tokens],
            "prompts": self.counts,
            "blocks": self.blocks,
            "limits": asdict(limits),
            "not_scored": {"last blocks": self.unscored, "no difference": self.same},
            "candidates": [
                {**_finite_or_none(asdict(c)), "cut_by": list(limits.cuts(c))} for c in self.candidates
            ],
        }


def score_directions(
    view: View,
    tokenizer: PreTrainedTokenizerBase,
    harmful: Sequence[Prompt],
    harmless: Sequence[Prompt],
    wanted: Wanted,
    watcher: Watcher,
) -> Surface:
    """Reads, splits, subtracts and scores. ``view`` is the target, its adapter and system prompt included.

    Errors: InputError for too few prompts (also after those left out), ConfigError for layers, positions or
    refusals that do not exist, ModelError.
    """
    check_sizes(len(harmful), len(harmless), wanted.validation)
    rendered = [[render_prompt(tokenizer, p, view.system_prompt) for p in s] for s in (harmful, harmless)]
    blocks = len(blocks_of(view.model))
    layers = _layers(wanted.layers, blocks)
    positions = wanted.positions or end_positions(tokenizer, rendered[0] + rendered[1], view.system_prompt)
    if (shortest := min(len(ids) for ids in rendered[0] + rendered[1])) < positions:
        raise ConfigError(f"--positions {positions}: the shortest prompt has {shortest} tokens")

    watcher.stage("the target's own first tokens", 2)
    plain = []
    for ids in rendered:
        plain.append(FirstTokens(ids).log_probs(view))
        watcher.step()
    tokens = refusal_tokens(tokenizer, plain[0], plain[1], wanted.refusals)
    chosen = [t.id for t in tokens]
    refused = [refusal_scores(law, chosen) for law in plain]
    del plain
    fits = (refused[0] > 0, refused[1] < 0)
    high, low = (
        _split(ids, [True] * len(ids) if wanted.keep_all else keep.tolist(), wanted.validation, name)
        for ids, keep, name in zip(rendered, fits, ("harmful", "harmless"), strict=True)
    )

    watcher.stage("activations", len(high.fit) + len(low.fit))
    vectors = prompt_means(view, high.fit, positions, watcher.step)
    scale = float(vectors.norm(dim=-1).max())
    vectors = vectors - prompt_means(view, low.fit, positions, watcher.step)

    scorer = _Scorer(view, high.aside, low.aside, chosen)
    names = _token_texts(tokenizer, rendered[0] + rendered[1], positions)
    places = [(layer, p) for layer in layers for p in range(-positions, 0)]
    distinct = [(n, p) for n, p in places if float(vectors[p, n].norm()) > _NOTHING * scale]
    watcher.stage("candidates", len(distinct))
    candidates = []
    for layer, position in distinct:
        candidates.append(scorer.score(vectors[position, layer], layer, position, names[position]))
        watcher.step()
    return Surface(
        candidates=tuple(candidates),
        vectors=vectors,
        tokens=tuple(tokens),
        refused=scorer.refused,
        harmless_refused=scorer.harmless_refused,
        blocks=blocks,
        layers=deepest(blocks) if wanted.layers is None else blocks,
        unscored=(blocks - len(layers)) * positions if wanted.layers is None else 0,
        same=len(places) - len(distinct),
        counts={
            name: {"fit": len(s.fit), "validation": len(s.aside), "left_out": s.dropped}
            for name, s in (("harmful", high), ("harmless", low))
        },
    )


class _Scorer:
    """What a direction does to the first token of the answers to the prompts kept aside."""

    def __init__(self, view: View, harmful: list[Ids], harmless: list[Ids], tokens: list[int]) -> None:
        self._view, self._tokens, self._harmful = view, tokens, len(harmful)
        self._both, self._harmless = FirstTokens([*harmful, *harmless]), FirstTokens(harmless)
        law = self._both.log_probs(view)
        self._plain = law[len(harmful) :]
        self.refused = self._mean(law[: len(harmful)])
        self.harmless_refused = self._mean(self._plain)

    def score(self, raw: torch.Tensor, layer: int, position: int, token: str) -> Candidate:
        """A candidate from its raw vector [hidden size]; scores of a broken model are NaN."""
        without = self._both.log_probs(self._with(Ablation(raw)), finite=False)
        added = self._harmless.log_probs(self._with(Addition({layer: raw})), finite=False)
        return Candidate(
            layer=layer,
            position=position,
            token=token,
            length=float(raw.norm()),
            bypass=self._mean(without[: self._harmful]),
            induce=self._mean(added),
            kl=divergence(self._plain, without[self._harmful :]),
        )

    def _with(self, change: Ablation | Addition) -> View:
        return self._view._replace(interventions=(*self._view.interventions, change), name="candidate")

    def _mean(self, law: torch.Tensor) -> float:
        return float(refusal_scores(law, self._tokens).mean())


def _split(ids: Sequence[Ids], keep: Sequence[bool], validation: float, name: str) -> Split:
    """The prompts that are kept, those set aside spread evenly over them."""
    kept = [x for x, wanted in zip(ids, keep, strict=True) if wanted]
    aside = aside_of(len(kept), validation)
    if len(kept) < LEAST_PROMPTS or not 1 <= aside <= len(kept) - 2:
        verb = "refuses" if name == "harmful" else "answers"
        raise InputError(
            f"--{name}: the target {verb} only {len(kept)} of {len(ids)} prompts by its first token, too few for "
            "a direction; give others, name the beginnings of refusals with --refusals, or take all of them with "
            "--keep-all"
        )
    places = {(i * len(kept) + len(kept) // 2) // aside for i in range(aside)}
    return Split(
        [x for i, x in enumerate(kept) if i not in places],
        [x for i, x in enumerate(kept) if i in places],
        len(ids) - len(kept),
    )


def _layers(wanted: tuple[int, ...] | None, blocks: int) -> list[int]:
    if wanted is None:
        return list(range(deepest(blocks)))
    if wrong := [n for n in wanted if not 0 <= n < blocks]:
        raise ConfigError(f"--layers {wrong[0]}: the target has blocks 0 to {blocks - 1}")
    return sorted(set(wanted))


def _token_texts(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Ids], positions: int
) -> dict[int, str]:
    """By position, the token's text where it is the same in all prompts, else ``(varies)``: texts of single
    prompts are not shown."""
    found = {}
    for position in range(-positions, 0):
        ids = {p[position] for p in prompts}
        found[position] = str(tokenizer.decode([ids.pop()])) if len(ids) == 1 else "(varies)"
    return found


def _finite_or_none(values: dict[str, Any]) -> dict[str, Any]:
    """JSON has no NaN."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}
