"""LoRA adapters switched on by a factor, as an exchange of weights.

Inside, each touched module holds W + scale * B A * scaling, added up in float32 (float64 for float64 models)
and rounded once to the model's dtype; outside, its own parameter again, the very object. Merged weights are
kept, so that switching between laws exchanges pointers instead of multiplying matrices.

The target's own adapter stays on under proposals that change something else; a proposal
``kind: lora, adapter: other`` stands in its place instead of being added to it. Nested adapters add up, each
rounded in turn.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from tailrisk.errors import ModelError
from tailrisk.models.digests import text_digest
from tailrisk.models.interventions.adapter import Adapter
from tailrisk.models.pipeline import elsewhere

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

DEFAULT_CACHE_BYTES = 4 << 30


class Swap(NamedTuple):
    """One module's weight: the parameter it was merged from, and the merged one."""

    module: torch.nn.Module
    base: torch.nn.Parameter
    merged: torch.nn.Parameter


class MergeCache:
    """Merged weights by (intervention, model), least recently used out first; sizes are of the new tensors.

    A set larger than the limit is not kept at all: it is merged anew every time.
    """

    def __init__(self, limit_bytes: int = DEFAULT_CACHE_BYTES) -> None:
        self.limit_bytes = limit_bytes
        self._sets: OrderedDict[tuple[str, int], tuple[PreTrainedModel, list[Swap]]] = OrderedDict()

    @property
    def bytes(self) -> int:
        return sum(_size(swaps) for _, swaps in self._sets.values())

    def get(self, fingerprint: str, model: PreTrainedModel) -> list[Swap] | None:
        """The kept set, if every module still holds the parameter that it was merged from."""
        key = (fingerprint, id(model))
        if key not in self._sets:
            return None
        _, swaps = self._sets[key]
        if any(s.module._parameters.get("weight") is not s.base for s in swaps):
            del self._sets[key]
            return None
        self._sets.move_to_end(key)
        return swaps

    def put(self, fingerprint: str, model: PreTrainedModel, swaps: list[Swap]) -> None:
        """Keeps the set, and the model with it: an ``id`` says nothing once its owner is gone."""
        if _size(swaps) > self.limit_bytes:
            return
        self._sets[fingerprint, id(model)] = (model, swaps)
        while self.bytes > self.limit_bytes:
            self._sets.popitem(last=False)


class Lora:
    """``adapter`` at ``scale``; 0 is exactly the model without it, 1 the adapter as it was trained.

    Give all adapters of one model the same ``cache``, or its limit counts for each alone.
    """

    def __init__(self, adapter: Adapter, scale: float = 1.0, cache: MergeCache | None = None) -> None:
        self.adapter = adapter
        self.scale = float(scale)
        self._cache = MergeCache() if cache is None else cache

    @property
    def fingerprint(self) -> str:
        return text_digest("lora", self.adapter.digest, self.scale.hex())

    @property
    def neutral(self) -> bool:
        return self.scale == 0.0

    @contextmanager
    def applied(self, model: PreTrainedModel) -> Iterator[None]:
        """Errors: ModelError where the adapter does not fit the model or a merged weight is not finite."""
        if self.neutral:
            yield
            return
        swaps = self._swaps(model)
        try:
            for swap in swaps:
                swap.module._parameters["weight"] = swap.merged
            yield
        finally:
            for swap in swaps:
                swap.module._parameters["weight"] = swap.base

    def settle(self, model: PreTrainedModel) -> None:
        """Changes the model for good, and keeps nothing of what it was. Errors: ModelError as for ``applied``."""
        for name in self.adapter.layers:
            if not (self.neutral or elsewhere(model, name)):
                swap = self._merge(model, name)
                swap.module._parameters["weight"] = swap.merged

    def _swaps(self, model: PreTrainedModel) -> list[Swap]:
        swaps = self._cache.get(self.fingerprint, model)
        if swaps is None:
            here = [name for name in self.adapter.layers if not elsewhere(model, name)]
            swaps = [self._merge(model, name) for name in here]
            self._cache.put(self.fingerprint, model, swaps)
        return swaps

    def _merge(self, model: PreTrainedModel, name: str) -> Swap:
        """Exchanging the parameter, not its data, leaves a tied twin (input and output embeddings) alone."""
        import torch

        try:
            module = model.get_submodule(name)
        except AttributeError:
            raise ModelError(f"adapter {self.adapter.name!r}: the model has no module {name!r}") from None
        base = module._parameters.get("weight")
        if base is None or not base.dtype.is_floating_point or base.dtype.itemsize < 2:
            raise ModelError(
                f"adapter {self.adapter.name!r}: the weight of {name!r} is packed; load a dense model"
            )
        with torch.no_grad():
            delta = self.adapter.delta(name, base)
            if delta.shape != base.shape:
                raise ModelError(
                    f"adapter {self.adapter.name!r}: {name!r} is {list(base.shape)} in the model and "
                    f"{list(delta.shape)} in the adapter"
                )
            merged = torch.add(base.to(delta.dtype), _cut_like(delta, base), alpha=self.scale).to(base.dtype)
            if not bool(torch.isfinite(_held(merged)).all()):
                raise ModelError(
                    f"adapter {self.adapter.name!r} at scale {self.scale:g}: non-finite weights in {name!r}"
                )
        return Swap(module, base, torch.nn.Parameter(merged, requires_grad=False))


def _size(swaps: list[Swap]) -> int:
    return sum(_held(s.merged).nbytes for s in swaps)


def _cut_like(whole: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """A tensor that every rank has in full, as the piece that goes with this rank's piece of ``like``."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(like, DTensor):
        return whole
    return distribute_tensor(whole, like.device_mesh, like.placements, src_data_rank=None)


def _held(tensor: torch.Tensor) -> torch.Tensor:
    """What of a tensor is in this process."""
    from torch.distributed.tensor import DTensor

    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
