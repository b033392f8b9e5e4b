"""Exact draws from a law, with the log-probability of the pass that drew them.

One prefill of the prompt serves all draws of a batch. Every draw has uniform numbers of its own, fixed by the
batch's seed before the first token, so its tokens do not depend on who else is in the batch or on how equal
texts are shared. Draws that have said the same so far are one row of the model's batch; finished ones leave
it. The stop token's own factor counts; nothing comes after it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from tailrisk.models.avoid import Room
from tailrisk.models.cache import RowCache
from tailrisk.models.draw import pick
from tailrisk.models.engine import Stage, View, after
from tailrisk.models.prefill import Prefills
from tailrisk.models.sharding import agree
from tailrisk.models.tree import Growth, IntArray, grow
from tailrisk.models.warp import TokenLaw, Warp, token_law
from tailrisk.records import Samples


class Limits(NamedTuple):
    """Where responses end, and how logits become probabilities; the same for every law of an audit."""

    max_new_tokens: int
    stop_ids: tuple[int, ...]
    warp: Warp = Warp()


class Part(NamedTuple):
    """One view, the rendered prompt that it reads, and its share in the law of the next token."""

    view: View
    prompt_ids: tuple[int, ...]
    share: float = 1.0


class Phase(NamedTuple):
    """Up to step ``until`` (exclusive) tokens come from a mixture of ``parts``; shares add up to one."""

    until: int
    parts: tuple[Part, ...]


def sample(
    phases: Sequence[Phase],
    limits: Limits,
    n: int,
    seed: int,
    *,
    where: str = "the prompt",
    room: Room | None = None,
    share: bool = True,
    prefills: Prefills | None = None,
) -> Samples:
    """``n`` independent draws; the same arguments give the same tokens.

    ``phases`` cover all steps in order. ``room``: openings that no draw begins with. ``share`` False runs every draw
    through the model on its own (for measurements). ``prefills``: prompts read before. Errors: ModelError for
    non-finite logits and for prompts that do not fit the model, with ``where`` in the message.
    """
    uniforms = torch.rand(
        (n, limits.max_new_tokens), generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    return _halving(phases, limits, uniforms, where, room, share, prefills or Prefills())


def _halving(
    phases: Sequence[Phase],
    limits: Limits,
    uniforms: torch.Tensor,
    where: str,
    room: Room | None,
    share: bool,
    prefills: Prefills,
) -> Samples:
    """A batch too large for the accelerator is drawn in halves: the uniform numbers say which tokens."""
    try:
        return _sample(phases, limits, uniforms, where, room, share, prefills)
    except torch.cuda.OutOfMemoryError:
        if len(uniforms) == 1:
            raise
    torch.cuda.empty_cache()
    middle = len(uniforms) // 2
    first = _halving(phases, limits, uniforms[:middle], where, room, share, prefills)
    second = _halving(phases, limits, uniforms[middle:], where, room, share, prefills)
    return Samples(
        first.tokens + second.tokens,
        np.concatenate((first.log_q, second.log_q)),
        np.concatenate((first.finished, second.finished)),
    )


def _sample(
    phases: Sequence[Phase],
    limits: Limits,
    uniforms: torch.Tensor,
    where: str,
    room: Room | None,
    share: bool,
    prefills: Prefills,
) -> Samples:
    n, steps = uniforms.shape
    tokens = np.zeros((n, steps), dtype=np.int64)
    lengths = np.full(n, steps)
    log_q = np.zeros(n)
    finished = np.zeros(n, dtype=np.bool_)
    alive = np.arange(n)
    growth = Growth(np.zeros(n, dtype=np.int64), np.zeros(1, dtype=np.int64), [], [])
    with Stage() as stage:
        streams: list[_Stream] = []
        for step in range(steps):
            parts = next(phase.parts for phase in phases if step < phase.until)
            if not streams or streams[-1].parts is not parts:
                texts = _texts(tokens, alive, growth, step)
                streams = _open(stage, streams, parts, n, steps, where, texts, prefills)
            tilts = _tilts(room, tokens, alive, growth, step)
            laws = []
            for stream in streams:
                logits = stream.logits(growth)
                place = f"token {step} of {where} ({stream.part.view.name})"
                laws.append(token_law(logits, limits.warp, place, tilts))
            with torch.inference_mode():
                drawn, gained = _draw(laws, parts, growth.slot, uniforms[alive, step])
            agree(drawn)
            tokens[alive, step] = drawn
            log_q[alive] += gained
            stopped = np.isin(drawn, limits.stop_ids)
            finished[alive[stopped]] = True
            lengths[alive[stopped]] = step + 1
            alive = alive[~stopped]
            if not len(alive):
                break
            growth = grow(growth.slot[~stopped], drawn[~stopped], share)
    return Samples([tokens[i, : lengths[i]].astype(np.int32) for i in range(n)], log_q, finished)


def _draw(
    laws: Sequence[TokenLaw], parts: Sequence[Part], slot: IntArray, uniforms: torch.Tensor
) -> tuple[IntArray, NDArray[np.float64]]:
    """Tokens [n] and their log-probabilities under the mixture of ``laws``."""
    device = laws[0].probs.device
    rows, uniforms = torch.from_numpy(slot).to(device), uniforms.to(device)
    if len(laws) == 1:
        drawn = pick(laws[0].probs, rows, uniforms)
        return drawn.cpu().numpy(), laws[0].log_prob(rows, drawn).cpu().numpy()
    mixture = torch.zeros_like(laws[0].probs)
    for law, part in zip(laws, parts, strict=True):
        mixture.add_(law.probs.to(device), alpha=part.share)
    drawn = pick(mixture, rows, uniforms)
    terms = [
        law.log_prob(rows.to(law.probs.device), drawn.to(law.probs.device)).cpu() + np.log(part.share)
        for law, part in zip(laws, parts, strict=True)
    ]
    return drawn.cpu().numpy(), torch.logsumexp(torch.stack(terms), 0).numpy()


def _tilts(
    room: Room | None, tokens: IntArray, alive: IntArray, growth: Growth, step: int
) -> list[tuple[int, int, float]]:
    """(row, token, log factor) for the rows whose text is the beginning of an opening to avoid."""
    if room is None or not any(len(u) == step for u in room.factors):
        return []
    texts = _texts(tokens, alive, growth, step)
    return [
        (row, token, factor)
        for row, text in enumerate(texts.tolist())
        for token, factor in room.factors.get(tuple(text), {}).items()
    ]


def _texts(tokens: IntArray, alive: IntArray, growth: Growth, step: int) -> IntArray:
    """[m, step]: what every row of the batch has said so far."""
    _, first = np.unique(growth.slot, return_index=True)
    return tokens[alive[first], :step]


def _open(
    stage: Stage,
    streams: Sequence[_Stream],
    parts: tuple[Part, ...],
    rows: int,
    steps: int,
    where: str,
    texts: IntArray,
    prefills: Prefills,
) -> list[_Stream]:
    """Streams for ``parts``; those already running go on, new ones read what was said so far."""
    running = {s.key: s for s in streams}
    opened = []
    for part in parts:
        stream = running.get((part.view.key, part.prompt_ids)) or _Stream(
            stage, part, rows, steps, where, texts, prefills
        )
        stream.part, stream.parts = part, parts
        opened.append(stream)
    return opened


class _Stream:
    """One view's pass over the batch's texts; row r of its cache is the text in slot r."""

    def __init__(
        self,
        stage: Stage,
        part: Part,
        rows: int,
        steps: int,
        where: str,
        texts: IntArray,
        prefills: Prefills,
    ) -> None:
        self.part = part
        self.parts: tuple[Part, ...] = (part,)
        self.key = part.view.key, part.prompt_ids
        self._stage = stage
        self._texts: IntArray | None = texts
        body = stage.show(part.view)
        body.check_length(len(part.prompt_ids), steps, where)
        read = prefills.read(body, part.view, part.prompt_ids)
        self._cache = RowCache(rows, len(part.prompt_ids) + steps, read.cache)
        self._hidden = read.hidden

    def logits(self, growth: Growth) -> torch.Tensor:
        """[m, V] for the texts after ``growth``; must be called once a step."""
        if self._texts is None:
            self._cache.copy_rows(growth.sources, growth.targets)
            self._hidden = self._pass(growth.tokens[:, None])
        elif self._texts.shape[1]:
            self._cache.copy_rows([0] * (len(self._texts) - 1), list(range(1, len(self._texts))))
            self._hidden = self._pass(self._texts)
        self._texts = None
        return self._stage.show(self.part.view).logits(self._hidden)

    def _pass(self, ids: IntArray) -> torch.Tensor:
        """Hidden states [rows, H] at the last of ``ids`` [rows, tokens]."""
        body = self._stage.show(self.part.view)
        start, count = self._cache.length, ids.shape[1]
        mask = after(start, count, body.device) if count > 1 else None
        hidden = body.hidden(torch.from_numpy(ids).to(body.device), start, self._cache, mask)
        self._cache.advance(count)
        return hidden[:, -1]
