"""The law of an answer's first token for many prompts, under one view at a time.

A model that refuses has usually decided so by its first token, so a change of the model can be judged by one
pass over the prompts, nothing sampled. What all prompts begin with (a system prompt) is read once a view.
Probabilities are the model's own, at temperature 1, whatever the deployment's sampling settings.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from tailrisk.models.cache import PromptCache
from tailrisk.models.engine import Body, Stage, View
from tailrisk.models.warp import check_finite
from tailrisk.training.activations import Ids, Padded, padded

_LEAST_SHARED = 4


class FirstTokens:
    """Prompts as token ids, none empty."""

    def __init__(self, prompts: Sequence[Ids]) -> None:
        self._shared = shared_start(prompts)
        self._rests = [list(ids[len(self._shared) :]) for ids in prompts]

    def log_probs(self, view: View, *, finite: bool = True) -> torch.Tensor:
        """[prompts, V] float32 log-probabilities (float64 for float64 models) of the first token, on the CPU.

        Errors: ModelError for prompts that do not fit the model and, unless ``finite`` is False (a change that
        may break the model), for logits that are not finite.
        """
        rows: list[torch.Tensor] = [torch.empty(0)] * len(self._rests)
        with Stage() as stage:
            body = stage.show(view)
            longest = len(self._shared) + max(map(len, self._rests))
            body.check_length(longest, 1, f"the longest prompt ({view.name})")
            cache = self._open(body)
            for batch in padded(self._rests, body.device):
                hidden = self._read(body, batch, cache)
                ends = torch.tensor(batch.lengths, device=hidden.device) - 1
                logits = body.logits(hidden[torch.arange(len(ends), device=hidden.device), ends])
                if finite:
                    check_finite(logits, f"the first token ({view.name})")
                law = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1).cpu()
                for place, row in enumerate(batch.rows):
                    rows[row] = law[place]
        return torch.stack(rows)

    def _open(self, body: Body) -> PromptCache | None:
        if not self._shared:
            return None
        cache = PromptCache()
        body.hidden(torch.tensor([self._shared], device=body.device), 0, cache)
        cache.close_prompt(len(self._shared))
        return cache

    def _read(self, body: Body, batch: Padded, cache: PromptCache | None) -> torch.Tensor:
        before, (rows, size) = len(self._shared), batch.ids.shape
        positions = torch.arange(before, before + size, device=body.device).expand(rows, -1)
        if cache is None:
            return body.hidden(batch.ids, positions, None)
        seen = torch.ones(size, before + size, dtype=torch.bool, device=body.device).tril(before)
        return body.hidden(batch.ids, positions, cache, seen[None, None])


def shared_start(prompts: Sequence[Ids]) -> list[int]:
    """The ids that all prompts begin with, a token of each left over; nothing where it is not worth it."""
    first, shortest = prompts[0], min(map(len, prompts)) - 1
    count = 0
    while count < shortest and all(ids[count] == first[count] for ids in prompts):
        count += 1
    return list(first[:count]) if len(prompts) > 1 and count >= _LEAST_SHARED else []


def refusal_scores(log_probs: torch.Tensor, tokens: Sequence[int]) -> torch.Tensor:
    """[prompts] float64: log P - log(1 - P), P the probability that the first token is one of ``tokens``
    (Arditi et al. 2024, arXiv 2406.11717, section 2.5). From log-probabilities [prompts, V]."""
    wide = log_probs.double()
    chosen = torch.zeros(wide.shape[1], dtype=torch.bool)
    chosen[list(tokens)] = True
    return wide[:, chosen].logsumexp(1) - wide[:, ~chosen].logsumexp(1)


def divergence(plain: torch.Tensor, changed: torch.Tensor) -> float:
    """Mean over prompts of KL(plain || changed) in nats; both are log-probabilities [prompts, V]."""
    p, q = plain.double(), changed.double()
    return float((p.exp() * (p - q)).sum(1).mean())
