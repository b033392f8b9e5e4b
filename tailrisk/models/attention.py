"""Attention for decoding on a CPU: one new token a row against a cache kept in float32.

PyTorch's CPU kernel handles a single query of a grouped-query model about ten times slower than two plain
matrix products do, because it repeats the keys for every head and packs them anew on each call. Here the
query heads that share a key head become the rows of one product, scores and softmax stay in float32, and
nothing is repeated. Everything else (several queries, masks, other devices) goes to the library's own
``sdpa``, so a model computes the same function with and without this.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NAME = "tailrisk_grouped"
# Options of some architectures that the short form below does not know: they keep the library's way.
_FOREIGN = ("softcap", "s_aux", "position_bias", "head_mask", "cache")


def grouped_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """``query`` [rows, heads, queries, d], ``key`` and ``value`` [rows, key heads, keys, d] (float32 where
    the cache widens them); returns [rows, queries, heads, d] in the query's dtype."""
    rows, heads, queries, depth = query.shape
    short = queries == 1 and attention_mask is None and query.device.type == "cpu" and not dropout
    if not short or any(options.get(name) is not None for name in _FOREIGN):
        if key.dtype != query.dtype:
            key, value = key.to(query.dtype), value.to(query.dtype)
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **options
        )
    key_heads = key.shape[1]
    wide = query.to(key.dtype) * (depth**-0.5 if scaling is None else scaling)
    scores = wide.view(rows, key_heads, heads // key_heads, depth) @ key.transpose(-1, -2)
    out = torch.softmax(scores, -1, dtype=torch.promote_types(key.dtype, torch.float32)).to(key.dtype) @ value
    return out.to(query.dtype).view(rows, 1, heads, value.shape[-1]), None


@contextmanager
def engine_attention(model: PreTrainedModel) -> Iterator[None]:
    """Inside, a model that uses ``sdpa`` decodes with :func:`grouped_attention`; others are left alone.

    The name has no mask function registered under it, so the library builds no masks: single queries and a
    first pass over a whole prompt need none, and every other pass brings its own.
    """
    config = model.config
    before = config._attn_implementation
    if before != "sdpa":
        yield
        return
    ALL_ATTENTION_FUNCTIONS.register(NAME, grouped_attention)
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = before
