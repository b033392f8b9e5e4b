"""A direction in the residual stream as a file: a unit vector, how long it was, and where it comes from.

``tailrisk train direction`` finds them and writes them; ``kind: ablation`` takes the direction out, ``kind:
vector`` adds ``coefficient`` times the vector at its raw length, at its own layer where no other is named.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tailrisk.errors import ConfigError, ModelError

if TYPE_CHECKING:
    import torch

_FORMAT = "tailrisk-direction-2"
_OLD_FORMAT = "tailrisk-direction-1"
_TENSOR = "direction"


@dataclass(frozen=True, slots=True)
class Direction:
    """``vector`` [hidden size] float32 of unit length, pointing from the harmless to the harmful mean.

    ``layer``: it was read at the output of this block, at the prompt's token ``position`` (-1 is the last).
    ``length``: of the raw difference of means. ``model`` and ``adapter``: digests of what it was read from.
    ``scores``: what it was chosen by.
    """

    vector: torch.Tensor
    layer: int
    length: float = 1.0
    model: str = ""
    adapter: str = ""
    position: int = -1
    scores: Mapping[str, float] = field(default_factory=dict)

    @property
    def raw(self) -> torch.Tensor:
        """The difference of means itself: added with coefficient 1 it turns the one set into the other."""
        return self.vector * self.length


def save_direction(path: Path, direction: Direction) -> None:
    """Writes a safetensors file; where it came from travels in the header. Errors: ConfigError."""
    from safetensors.torch import save

    metadata = {
        "format": _FORMAT,
        "layer": str(direction.layer),
        "position": str(direction.position),
        "length": direction.length.hex(),
        "model": direction.model,
        "adapter": direction.adapter,
        "scores": json.dumps(dict(direction.scores), sort_keys=True),
    }
    data = save({_TENSOR: direction.vector.contiguous().cpu()}, metadata)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as error:
        raise ConfigError(f"direction {path}: cannot be written ({error.strerror})") from error


def is_own(path: Path) -> bool:
    """Whether a safetensors file says that ``save_direction`` wrote it. Errors: those of safetensors."""
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        return (file.metadata() or {}).get("format") in (_FORMAT, _OLD_FORMAT)


def load_direction(path: Path) -> Direction:
    """Reads what ``save_direction`` wrote. Errors: ConfigError (no file), ModelError (another content)."""
    import torch
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise ConfigError(f"direction {path}: no such file")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") == _OLD_FORMAT:
                raise ModelError(
                    f"direction {path}: written by an earlier tailrisk; make it anew with 'tailrisk train direction'"
                )
            if metadata.get("format") != _FORMAT or list(file.keys()) != [_TENSOR]:
                raise ModelError(
                    f"direction {path}: not a direction of tailrisk ('tailrisk train direction' writes them)"
                )
            found = Direction(
                vector=file.get_tensor(_TENSOR).to(torch.float32),
                layer=int(metadata["layer"]),
                length=float.fromhex(metadata["length"]),
                model=metadata.get("model", ""),
                adapter=metadata.get("adapter", ""),
                position=int(metadata.get("position", "-1")),
                scores={str(k): float(v) for k, v in json.loads(metadata.get("scores", "{}")).items()},
            )
    except (SafetensorError, OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise ModelError(
            f"direction {path}: not a safetensors direction ({str(error)[:200]}); nothing else is loaded"
        ) from error
    norm = float(found.vector.double().norm()) if found.vector.dim() == 1 else 0.0
    if not abs(norm - 1.0) <= 1e-3:
        raise ModelError(
            f"direction {path}: shape {list(found.vector.shape)}, length {norm:g}; it is no vector of unit length"
        )
    if not 0.0 < found.length < math.inf or found.layer < 0:
        raise ModelError(
            f"direction {path}: raw length {found.length:g}, layer {found.layer}; the file is damaged"
        )
    return found
