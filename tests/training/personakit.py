"""A trait of a planted model: its answers begin with ``NO`` where the system prompt is of the bad kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from plantedmodel import NO, make_planted_model

from tailrisk.config import Config
from tailrisk.training.traits import LoadedTrait, load_trait

TRAIT: dict[str, Any] = {
    "name": "no-sayer",
    "positive": ["w3 w4", "w5 w5"],
    "negative": ["w7 w8", "w9 w10"],
    # Words of neither kind.
    "questions": [f"w{a} w{b}" for a in (11, 12, 13) for b in (14, 15)],
    "judge": {"kind": "regex", "pattern": f"^{NO}\\b"},
}


def trait(folder: Path, **changes: Any) -> LoadedTrait:
    path = folder / f"{changes.get('name', TRAIT['name'])}.yaml"
    path.write_text(yaml.safe_dump({**TRAIT, **changes}))
    return load_trait(path)


def config(folder: Path, **target: Any) -> Config:
    """An audit of ``folder/model`` whose own proposal names a file that is only now being made."""
    given = {
        "target": {"model": "model", "dtype": "float32", "sampling": {"max_new_tokens": 3}, **target},
        "prompts": {"path": "not-there.txt"},
        "proposals": [{"name": "pushed", "kind": "vector", "vector": "no-sayer.safetensors"}],
        "judge": {"kind": "regex", "pattern": NO},
    }
    return Config.model_validate(given).at(folder)


def planted(folder: Path) -> Path:
    """The folder with the planted model in it."""
    make_planted_model(folder / "model")
    return folder
