"""What ``tailrisk train persona`` leaves behind: the vectors, the surface of the search, a proposal to paste.

The vectors are a safetensors file with a float32 tensor ``layer_N`` for every block N, as proposals of kind
``vector`` read it; where it came from travels in the header. The surface is JSON beside it. Neither holds a
prompt or an answer.
"""

from __future__ import annotations

import json
import os
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tailrisk.config import Config
from tailrisk.errors import ConfigError
from tailrisk.training.persona import PersonaVectors, Target
from tailrisk.training.persona_search import Surface
from tailrisk.training.traits import Trait

FORMAT = "tailrisk-persona-1"


@dataclass(frozen=True, slots=True)
class Made:
    """All that one run of the verb found."""

    trait: Trait
    target: Target
    found: PersonaVectors
    surface: Surface
    seed: int

    def to_json(self) -> dict[str, Any]:
        chosen = self.surface.chosen
        return {
            "trait": self.trait.name,
            "model": self.target.model,
            "adapter": self.target.adapter,
            "seed": self.seed,
            "pairs": self.found.counts._asdict(),
            "lengths": [round(float(v.norm()), 6) for v in self.found.vectors],
            "tokens": self.surface.tokens,
            "target": self.surface.target.to_json(),
            "cells": [cell.to_json() for cell in self.surface.cells],
            "chosen": None if chosen is None else chosen.to_json(),
            "why": self.surface.why,
        }


def save(path: Path, made: Made) -> Path:
    """Writes the vectors to ``path`` and the surface beside it, whose path is returned; each all or nothing.

    Errors: ConfigError for a place that cannot be written.
    """
    from safetensors.torch import save

    counts = made.found.counts
    tensors = {f"layer_{n}": v.float().cpu().contiguous() for n, v in enumerate(made.found.vectors)}
    metadata = {
        "format": FORMAT,
        "trait": made.trait.name,
        "pairs_kept": str(counts.kept),
        "pairs_drawn": str(counts.drawn),
        "seed": str(made.seed),
        "model": made.target.model,
        "adapter": made.target.adapter,
    }
    beside = path.with_suffix(".json")
    _write(path, save(tensors, metadata))
    _write(beside, (json.dumps(made.to_json(), indent=1, allow_nan=False) + "\n").encode())
    return beside


def proposal(path: Path, made: Made, config: Config) -> dict[str, Any] | None:
    """The chosen setting as a proposal of ``config``, the file named relative to it; None without a choice."""
    chosen = made.surface.chosen
    if chosen is None:
        return None
    return {
        "name": f"{made.trait.name}-vector"[:128],
        "kind": "vector",
        "vector": os.path.relpath(path.resolve(), config.base.resolve()),
        "layers": [chosen.layer],
        "coefficient": chosen.coefficient,
        "tokens": made.surface.tokens,
    }


def proposal_yaml(fields: dict[str, Any]) -> str:
    """One item of the list ``proposals``, ready to be pasted: JSON's texts, numbers and lists are YAML."""
    shown = ", ".join(f"{key}: {_plain(value)}" for key, value in fields.items())
    return f"  - {{{shown}}}"


def _plain(value: Any) -> str:
    text = str(value)
    simple = isinstance(value, str) and text[:1].isalpha() and not set(text) - _PLAIN
    return text if simple else json.dumps(value, ensure_ascii=False)


_PLAIN = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-/")


def _write(path: Path, data: bytes) -> None:
    """By way of a neighbour, so that a file is never half there."""
    spare = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        spare.write_bytes(data)
        os.replace(spare, path)
    except OSError as error:
        with suppress(OSError):
            spare.unlink(missing_ok=True)
        raise ConfigError(f"--out: {path} cannot be written ({error.strerror})") from error
