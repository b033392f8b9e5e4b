"""Prompts that a view has read: kept for the next batch of the same prompt, for a small model's batches are short.

Sampling and scoring read the same pass, so they agree about the first token to the last digit.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from tailrisk.models.cache import PromptCache
from tailrisk.models.engine import Body, View

LIMIT = 256 * 2**20
"""Most bytes that are kept. A long prompt of a large model is above it, and its pass is not what costs."""


class Prefill(NamedTuple):
    """``hidden`` [1, H] at the prompt's last token, and the keys and values of all of it."""

    hidden: torch.Tensor
    cache: PromptCache


class Prefills:
    """The prefills used last, up to ``limit`` bytes. Views are told apart by ``View.key``, so their models must live
    as long as this does."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._kept: dict[object, Prefill] = {}
        self._size = 0

    def read(self, body: Body, view: View, prompt_ids: tuple[int, ...]) -> Prefill:
        """The prompt's prefill; ``body`` must be showing ``view``."""
        key = view.key, prompt_ids
        found = self._kept.pop(key, None)
        if found is None:
            cache = PromptCache()
            ids = torch.tensor([prompt_ids], device=body.device)
            found = Prefill(body.hidden(ids, 0, cache)[0, -1:], cache)
            cache.close_prompt(len(prompt_ids))
            self._size += cache.size
        self._kept[key] = found
        while self._size > self._limit:
            self._size -= self._kept.pop(next(iter(self._kept))).cache.size
        return found
