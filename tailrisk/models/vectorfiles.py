"""Directions and steering vectors, read from the files that tailrisk and other tools write.

``.safetensors`` (tailrisk's own directions, or any with one tensor or a tensor a layer), ``.pt`` and ``.pth``
(read by torch's weights-only loader, which runs no code: a tensor, ``{"vector": tensor}``, or a tensor a
layer), ``.gguf`` (control vectors of llama.cpp and repeng). A tensor a layer is one whose key is a number or
whose name holds one, such as ``direction.12`` or ``layer_12``; a table is a tensor with a row a layer.

Numbers are those of the block, from 0, at whose output the vector belongs. A table with one row more than the
model has blocks begins with the embeddings, as the hidden states of ``transformers`` do, and its row i is the
output of block i - 1.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tailrisk.errors import ConfigError, ModelError
from tailrisk.models.digests import text_digest
from tailrisk.models.directions import is_own, load_direction

if TYPE_CHECKING:
    import torch

SUFFIXES = (".safetensors", ".pt", ".pth", ".gguf")
_LAYER = re.compile(r"(?:^|[^A-Za-z0-9]|layers?)(\d+)(?![A-Za-z0-9])")


@dataclass(frozen=True, slots=True)
class Vectors:
    """What a file holds: one ``single`` vector [width], or vectors by layer, or a ``table`` [rows, width].

    ``home``: the block that a single vector was read from, where the file says so.
    ``where`` begins every message, e.g. ``vector /path/to/file.pt``.
    """

    where: str
    single: torch.Tensor | None = None
    layers: Mapping[int, torch.Tensor] = field(default_factory=dict)
    table: torch.Tensor | None = None
    home: int | None = None

    @property
    def digest(self) -> str:
        """sha256 of the numbers: what a law depends on."""
        if self.single is not None:
            own = () if self.home is None else (str(self.home),)
            return text_digest(*own, self.single.numpy().tobytes())
        if self.table is not None:
            return text_digest(repr(tuple(self.table.shape)), self.table.numpy().tobytes())
        rows = sorted(self.layers.items())
        return text_digest(*(part for n, v in rows for part in (str(n), v.numpy().tobytes())))

    def one(self, size: int | None) -> torch.Tensor:
        """The only vector, checked against the model's hidden size (None: unknown).

        Errors: ConfigError for several vectors or another width, ModelError for one that is no direction.
        """
        found = list(self.layers.values()) if self.single is None else [self.single]
        count = len(found) if self.table is None else len(self.table)
        if count != 1:
            raise ConfigError(
                f"{self.where}: holds {count} vectors where one is wanted; save the one that is meant in a "
                "file of its own"
            )
        return self._checked(found[0], size, "")

    def at(self, layers: Sequence[int] | None, size: int, blocks: int) -> dict[int, torch.Tensor]:
        """The vectors [size] for some blocks (negative: from the last; None: all that the file names, or the
        home of its only one) of a model with so many.

        Errors: ConfigError for layers that the model or the file does not have and for another width,
        ModelError for vectors that are zero or not finite.
        """
        wanted = None if layers is None else self._blocks(layers, blocks)
        if self.single is not None:
            if wanted is None:
                if self.home is None:
                    raise ConfigError(
                        f"{self.where}: holds a single vector; 'layers' must say where it is added"
                    )
                wanted = self._blocks([self.home], blocks)
            return dict.fromkeys(wanted, self._checked(self.single, size, ""))
        have = self._numbered(blocks)
        if wanted is None:
            wanted = self._blocks(sorted(have), blocks)
        if missing := [n for n in wanted if n not in have]:
            raise ConfigError(
                f"{self.where}: has no vector for layer {missing[0]}, only for {_listed(have)}; change 'layers'"
            )
        return {n: self._checked(have[n], size, f"layer {n}: ") for n in wanted}

    def _numbered(self, blocks: int) -> Mapping[int, torch.Tensor]:
        if self.table is None:
            return self.layers
        skipped = len(self.table) - blocks
        if skipped not in (0, 1):
            raise ConfigError(
                f"{self.where}: has {len(self.table)} rows; the target has {blocks} blocks, so {blocks} rows are "
                f"understood, or {blocks + 1} with the embeddings first"
            )
        return dict(enumerate(self.table[skipped:]))

    def _blocks(self, layers: Sequence[int], blocks: int) -> list[int]:
        if wrong := [n for n in layers if not -blocks <= n < blocks]:
            raise ConfigError(
                f"{self.where}: layer {wrong[0]} is out of range; the target has blocks 0 to {blocks - 1} "
                f"(or -{blocks} to -1, from the last)"
            )
        found = [n % blocks for n in layers]
        if len(set(found)) < len(found):
            raise ConfigError(f"{self.where}: 'layers' names a block twice, from the front and from the end")
        return found

    def _checked(self, vector: torch.Tensor, size: int | None, which: str) -> torch.Tensor:
        import torch

        if size is not None and vector.numel() != size:
            raise ConfigError(
                f"{self.where}: {which}has {vector.numel()} entries, the target's hidden size is {size}: it was "
                "made for another model"
            )
        if not bool(torch.isfinite(vector).all()):
            raise ModelError(f"{self.where}: {which}not finite (NaN or infinite numbers); make it anew")
        if not bool(vector.any()):
            raise ModelError(f"{self.where}: {which}all zero, which changes nothing; leave this layer out")
        return vector


def read_vectors(path: Path, what: str = "vector") -> Vectors:
    """Reads a file; ``what`` is the configuration's field that names it. Nothing in the file is run.

    Errors: ConfigError (no file, unknown suffix), ModelError (another content).
    """
    where = f"{what} {path}"
    if path.suffix not in SUFFIXES:
        raise ConfigError(f"{where}: {path.suffix or 'no suffix'}; it must be one of {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise ConfigError(f"{where}: no such file")
    if path.suffix == ".safetensors":
        return _from_safetensors(path, where)
    if path.suffix == ".gguf":
        return _from_gguf(path, where)
    return _from_torch(path, where)


def _from_safetensors(path: Path, where: str) -> Vectors:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        own = is_own(path)
        tensors = {} if own else load_file(path, device="cpu")
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"{where}: not a safetensors file ({str(error)[:200]}); nothing else is loaded"
        ) from error
    if not own:
        return _sorted_out(tensors, where)
    direction = load_direction(path)
    return Vectors(where, single=direction.raw, home=direction.layer)


def _from_torch(path: Path, where: str) -> Vectors:
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            data = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # The loader's own text advises to switch the protection off.
        raise ModelError(
            f"{where}: refused by torch's weights-only loader ({type(error).__name__}): it holds code or objects "
            "beside tensors, or is damaged; save the tensors alone, best as safetensors"
        ) from error
    if isinstance(data, dict) and "vector" in data:
        data = data["vector"]
    return _sorted_out(data if isinstance(data, dict) else {"": data}, where)


def _from_gguf(path: Path, where: str) -> Vectors:
    import numpy as np
    import torch
    from gguf import GGUFReader
    from gguf.quants import dequantize

    try:
        tensors = {
            t.name: torch.from_numpy(np.array(dequantize(t.data, t.tensor_type), dtype=np.float32))
            for t in GGUFReader(path).tensors
        }
    except Exception as error:
        raise ModelError(
            f"{where}: not a GGUF file that can be read ({type(error).__name__}: {str(error)[:200]})"
        ) from error
    if not tensors or any(not re.fullmatch(r"direction\.\d+", name) for name in tensors):
        raise ModelError(
            f"{where}: no control vector; its tensors must be named direction.N, found "
            f"{', '.join(repr(name) for name in sorted(tensors)[:3]) or 'none'}"
        )
    return _sorted_out(tensors, where)


def _sorted_out(tensors: Mapping[Any, Any], where: str) -> Vectors:
    """Errors: ModelError for what is neither one tensor nor a vector a layer."""
    import torch

    for name, tensor in tensors.items():
        if not isinstance(tensor, torch.Tensor) or not tensor.is_floating_point() or tensor.is_sparse:
            kind = tensor.dtype if isinstance(tensor, torch.Tensor) else type(tensor).__name__
            raise ModelError(f"{where}: {name!r} is {kind}; only tensors of floating-point numbers are read")
    numbers = [_layer(name) for name in tensors]
    values = [_plain(tensor) for tensor in tensors.values()]
    if len(values) == 1 and numbers[0] is None:
        (only,) = values
        if only.dim() == 2 and len(only) > 1:
            return Vectors(where, table=only)
        return Vectors(where, single=_row(only, where))
    found = {n: _row(v, where) for n, v in zip(numbers, values, strict=True) if n is not None}
    if not values or len(found) < len(values):
        raise ModelError(
            f"{where}: holds {len(values)} tensors ({', '.join(repr(n) for n in list(tensors)[:3])}); one is "
            "wanted, or one a layer, each named by the layer's number, like 'direction.12'"
        )
    return Vectors(where, layers=found)


def _layer(name: Any) -> int | None:
    if isinstance(name, int) and not isinstance(name, bool):
        return name if name >= 0 else None
    found = _LAYER.findall(name) if isinstance(name, str) else []
    return int(found[0]) if len(found) == 1 else None


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    """Float64 stays, everything narrower becomes float32, which holds it exactly."""
    import torch

    wide = tensor.detach().to(torch.promote_types(tensor.dtype, torch.float32))
    return wide.contiguous().clone()


def _row(tensor: torch.Tensor, where: str) -> torch.Tensor:
    row = tensor[0] if tensor.dim() == 2 and len(tensor) == 1 else tensor
    if row.dim() != 1 or not len(row):
        raise ModelError(f"{where}: a tensor of shape {list(tensor.shape)} is no vector")
    return row


def _listed(numbers: Mapping[int, Any]) -> str:
    """Layers in short: ``3, 5`` or ``1 to 11``."""
    found = sorted(numbers)
    if len(found) > 2 and found == list(range(found[0], found[-1] + 1)):
        return f"{found[0]} to {found[-1]}"
    return ", ".join(map(str, found[:20])) + (" ..." if len(found) > 20 else "")
