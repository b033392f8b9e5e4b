"""Keys and values of growing texts, by layer, written once and copied only where a text branches.

``PromptCache``: a prompt's keys and values, in front of whatever is passed next.
``RowCache`` serves decoding: row r of every buffer is one text, prompt included, all of one length. A step
writes one column; a text that goes on in two ways has its row copied once; a finished one is overwritten.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers.cache_utils import Cache


class _EngineCache(Cache):
    """What models ask of a cache; layers are filled in the order in which they call ``update``.

    ``get_seq_length`` is 0 while the prompt is read, all of it in one pass, and never again: changes of prompt
    or response tokens alone go by that.
    """

    def __init__(self) -> None:
        super().__init__(layers=[])
        self.length = 0

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self.length

    def get_query_offset(self, layer_idx: int = 0) -> int:
        return self.length

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        return self.length + query_length, 0


class PromptCache(_EngineCache):
    """The first pass is kept; every later one sees it in front of its own tokens and leaves no trace."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def update(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if self.length == 0:
            self.kept[layer_idx] = (key_states, value_states)
            return key_states, value_states
        keys, values = (kept.expand(len(key_states), -1, -1, -1) for kept in self.kept[layer_idx])
        return torch.cat((keys, key_states), 2), torch.cat((values, value_states), 2)

    @property
    def size(self) -> int:
        """In bytes."""
        return sum(states.nbytes for pair in self.kept.values() for states in pair)

    def close_prompt(self, tokens: int) -> None:
        """Called after the first pass."""
        self.length = tokens


class RowCache(_EngineCache):
    """Room for ``rows`` texts of ``length`` tokens, which begin with the prompt's, in row 0.

    On a CPU half-precision keys and values are kept in float32: the products are then exact in what they
    read, and faster than the half-precision ones.
    """

    def __init__(self, rows: int, length: int, prompt: PromptCache) -> None:
        super().__init__()
        self._rows, self._room = rows, length
        self._buffers = {
            layer: (self._room_for(keys), self._room_for(values))
            for layer, (keys, values) in prompt.kept.items()
        }
        for layer, buffers in self._buffers.items():
            for buffer, state in zip(buffers, prompt.kept[layer], strict=True):
                buffer[:1, :, : prompt.length] = state
        self.length = prompt.length

    def update(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        keys, values = self._buffers[layer_idx]
        rows, start = key_states.shape[0], self.length
        end = start + key_states.shape[2]
        keys[:rows, :, start:end] = key_states
        values[:rows, :, start:end] = value_states
        return keys[:rows, :, :end], values[:rows, :, :end]

    def advance(self, tokens: int) -> None:
        """Called after every pass, when all layers have written their ``tokens`` columns."""
        self.length += tokens

    def copy_rows(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        """Row ``targets[i]`` becomes a copy of row ``sources[i]``; no row is both."""
        if not sources:
            return
        device = next(iter(self._buffers.values()))[0].device
        source, target = torch.tensor(sources, device=device), torch.tensor(targets, device=device)
        for pair in self._buffers.values():
            for buffer in pair:
                used = buffer[:, :, : self.length]
                used[target] = used[source]

    def _room_for(self, states: torch.Tensor) -> torch.Tensor:
        wide = states.device.type == "cpu" and states.dtype.itemsize < 4
        _, heads, _, depth = states.shape
        return torch.empty(
            (self._rows, heads, self._room, depth),
            dtype=torch.float32 if wide else states.dtype,
            device=states.device,
        )
