"""The target and its proposals as laws over whole responses: the ``Laws`` of the driver, by transformers.

A law is a view (a model, changes inside it, a system prompt) and decoding options. Its sampling and its
density come from the same description, and each distinct view is scored once for all laws that need it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from tailrisk.errors import ModelError
from tailrisk.models.avoid import Room, measure
from tailrisk.models.density import Mixtures, forced
from tailrisk.models.digests import proposal_digest, text_digest
from tailrisk.models.engine import View
from tailrisk.models.interventions import active
from tailrisk.models.prefill import Prefills
from tailrisk.models.processors import processor_kind
from tailrisk.models.sampling import Limits, Part, Phase, sample
from tailrisk.models.scoring import Scores, next_token_log_probs, token_log_probs
from tailrisk.models.tokens import decode_texts, render_prompt, template_digest
from tailrisk.records import FloatArray, Prompt, Samples

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_KEPT_ROOMS = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class Law:
    """One law over responses; ``digest`` hashes its model's weights.

    For the first ``switch`` tokens (None: all) a token comes from ``mix`` * view + (1 - mix) * target, then
    from the target. ``opening``: the view's law given that the response begins with these tokens. ``avoided``: given
    that it begins with none of these, a prefix-free set. The two are for laws that the view alone decides on.
    """

    name: str
    view: View
    digest: str
    mix: float = 1.0
    switch: int | None = None
    opening: tuple[int, ...] = ()
    avoided: tuple[tuple[int, ...], ...] = ()

    @property
    def pure(self) -> bool:
        """Whether the view alone decides on every token."""
        return self.mix == 1.0 and self.switch is None


class LawSet:
    """Implements ``tailrisk.audit.protocols.Laws``; ``laws[0]`` is the target. Laws that are apart from theirs
    (``with_target`` False) have fingerprints of their own, without its.

    ``corrected`` says that sampling and scoring differ by more than rounding of the last digits (half
    precision), so that draws are to be weighted by the ratio of the two. ``processor``: the kind that computes them.
    """

    def __init__(
        self,
        laws: Sequence[Law],
        tokenizer: PreTrainedTokenizerBase,
        limits: Limits,
        *,
        with_target: bool = True,
    ) -> None:
        self.laws = tuple(laws)
        self.tokenizer = tokenizer
        self.limits = limits
        self._rooms: dict[object, Room] = {}
        self._prefills = Prefills()
        self.names = tuple(law.name for law in self.laws)
        self.corrected = any(law.view.model.dtype in (torch.bfloat16, torch.float16) for law in self.laws)
        self.processor = processor_kind(self.target.view.model.device)
        own = tuple(self._fingerprint(law) for law in self.laws)
        self.fingerprints = own
        if with_target:
            self.fingerprints = (own[0], *(proposal_digest(own[0], digest) for digest in own[1:]))

    @property
    def target(self) -> Law:
        return self.laws[0]

    def prompt_ids(self, prompt: Prompt, view: View) -> tuple[int, ...]:
        """What a view reads before it answers."""
        return render_prompt(self.tokenizer, prompt, view.system_prompt)

    def sample(self, prompt: Prompt, component: int, n: int, seed: int) -> Samples:
        """n independent draws of one law; the same arguments give the same tokens. ``log_q`` is of the law
        at work at each step, openings included. Errors: ModelError."""
        law = self.laws[component]
        where = f"prompt {prompt.id!r}"
        opening = law.opening[: self.limits.max_new_tokens]
        steps = self.limits.max_new_tokens - len(opening)
        if not steps:
            tokens = [np.array(opening, dtype=np.int32) for _ in range(n)]
            return Samples(tokens, np.zeros(n), np.zeros(n, dtype=np.bool_))
        limits = self.limits._replace(max_new_tokens=steps)
        room = self._room(law, prompt) if law.avoided else None
        drawn = sample(
            self._phases(law, prompt, opening),
            limits,
            n,
            seed,
            where=where,
            room=room,
            prefills=self._prefills,
        )
        if opening:
            front = np.array(opening, dtype=np.int32)
            return drawn._replace(tokens=[np.concatenate((front, t)) for t in drawn.tokens])
        return drawn

    def log_prob(
        self,
        prompt: Prompt,
        tokens: Sequence[NDArray[np.int32]],
        components: Sequence[int] | None = None,
    ) -> FloatArray:
        """[n, S] log-probabilities of whole responses under ``components`` (None: all K laws), ``-inf`` where
        impossible; never NaN, never +inf. Only the views that these need are scored, besides the target.

        Errors: ModelError for non-finite logits and for ids outside the vocabulary.
        """
        scored: dict[object, Scores] = {}

        def scores(view: View) -> Scores:
            if view.key not in scored:
                scored[view.key] = token_log_probs(
                    view,
                    self.prompt_ids(prompt, view),
                    tokens,
                    self.limits.warp,
                    where=f"prompt {prompt.id!r}",
                    prefills=self._prefills,
                )
            return scored[view.key]

        asked = self.laws if components is None else [self.laws[k] for k in components]
        out = np.empty((len(tokens), len(asked)))
        mixed = any(not law.pure for law in asked)
        mixtures = Mixtures(scores(self.target.view).tokens) if mixed else None
        for column, law in enumerate(asked):
            out[:, column] = _density(law, tokens, scores(law.view), mixtures)
            if law.avoided:
                out[:, column] -= self._room(law, prompt).log_room
        return np.minimum(out, 0.0)

    def texts(self, tokens: Sequence[NDArray[np.int32]]) -> list[str]:
        """Responses as text, special tokens left out."""
        return decode_texts(self.tokenizer, tokens)

    def _phases(self, law: Law, prompt: Prompt, opening: tuple[int, ...]) -> list[Phase]:
        own = Part(law.view, self.prompt_ids(prompt, law.view) + opening, law.mix)
        steps = self.limits.max_new_tokens
        if law.pure:
            return [Phase(steps, (own,))]
        target = Part(self.target.view, self.prompt_ids(prompt, self.target.view))
        mixed = (own,) if law.mix == 1.0 else (own, target._replace(share=1.0 - law.mix))
        return [Phase(steps if law.switch is None else law.switch, mixed), Phase(steps, (target,))]

    def _room(self, law: Law, prompt: Prompt) -> Room:
        """What the law's openings leave after this prompt; measured once."""
        ids = self.prompt_ids(prompt, law.view)
        key = law.view.key, ids, law.avoided
        if key not in self._rooms:
            if len(self._rooms) >= _KEPT_ROOMS:
                self._rooms.pop(next(iter(self._rooms)))
            where = f"prompt {prompt.id!r}"
            self._rooms[key] = measure(
                law.avoided,
                lambda texts: next_token_log_probs(
                    law.view, ids, texts, self.limits.warp, where=where, prefills=self._prefills
                ),
            )
        room = self._rooms[key]
        if room.log_room == -np.inf:
            raise ModelError(
                f"{law.name!r}: all that prompt {prompt.id!r} can be answered with is to be avoided"
            )
        return room

    def _fingerprint(self, law: Law) -> str:
        view = law.view
        return text_digest(
            law.name,
            law.digest,
            *(i.fingerprint for i in active(view.interventions)),
            template_digest(self.tokenizer),
            repr((view.system_prompt, law.mix.hex(), law.switch, law.opening, law.avoided)),
            repr((self.limits.max_new_tokens, self.limits.stop_ids)),
            repr(tuple(self.limits.warp)),
            str(view.model.dtype),
        )


def _density(
    law: Law, tokens: Sequence[NDArray[np.int32]], own: Scores, mixtures: Mixtures | None
) -> FloatArray:
    """[n] log-probabilities of whole responses under one law, from token log-probabilities; for openings to
    avoid without the constant that normalises."""
    if law.opening:
        return forced(law.opening, tokens, own.tokens)
    if law.avoided:
        begun = [any(tuple(t[: len(o)].tolist()) == o for o in law.avoided) for t in tokens]
        return np.where(begun, -np.inf, [p.sum() for p in own.tokens])
    if law.pure:
        return np.array([p.sum() for p in own.tokens])
    assert mixtures is not None
    return mixtures.log_prob(law.view.key, own.tokens, law.mix, law.switch)
