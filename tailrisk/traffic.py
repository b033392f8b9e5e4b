"""A traffic mix: how often a deployment is asked what, as shares of the prompts, groups or categories of an audit.

A file holds one of them, by name, with weights that are made to sum to one:

    categories: {medicine: 3, chemistry: 1}
    assumed_harmless: 0.99        # share of the traffic that is like no audited prompt, taken for harmless

YAML, JSON, or CSV with the columns prompt, group or category, and weight. What is not named is not in the mix. The
weight of a category is spread evenly over its base prompts, that of a group over its prompts: a group counts once.
"""

from __future__ import annotations

import csv
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

from tailrisk.errors import ConfigError
from tailrisk.strictyaml import parse

KINDS = {"prompt": "prompts", "group": "groups", "category": "categories"}
HARMLESS = "assumed_harmless"
SUFFIXES = (".yaml", ".yml", ".json", ".csv")


class Audited(NamedTuple):
    """What a mix needs of a prompt; ``group`` and ``category`` may be None."""

    id: str
    group: str | None
    category: str | None


@dataclass(frozen=True, slots=True)
class Traffic:
    """``kind``: prompt, group, category or "" for all base prompts alike. ``weights`` by name. ``harmless``: the
    share that is taken for harmless. ``source``: the file."""

    kind: str = ""
    weights: Mapping[str, float] = field(default_factory=dict)
    harmless: float = 0.0
    source: str = ""

    def shares(self, prompts: Sequence[Audited]) -> list[float]:
        """One share a prompt, their sum 1 - ``harmless``. ``ConfigError``: a name that no prompt has."""
        total = math.fsum(self.weights.values()) if self.kind else 1.0
        bases = [p.group or f"\0{p.id}" for p in prompts]
        if not self.kind:
            return _spread(dict.fromkeys(prompts, ""), {"": 1 - self.harmless}, bases, prompts)
        names = {p: _name(p, self.kind) for p in prompts}
        known = set(names.values()) - {None}
        if unknown := [name for name in self.weights if name not in known]:
            near = get_close_matches(unknown[0], sorted(str(k) for k in known), n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigError(
                f"{self.source}: {KINDS[self.kind]}: no audited prompt has the {self.kind} {unknown[0]!r}{hint}"
            )
        scaled = {name: (1 - self.harmless) * w / total for name, w in self.weights.items()}
        return _spread(names, scaled, bases, prompts)

    def in_words(self) -> str:
        mix = (
            "all base prompts equally often, a group counting as one"
            if not self.kind
            else f"shares by {self.kind} from {self.source}"
        )
        rest = f"; {self.harmless:.4g} of the traffic is assumed harmless" if self.harmless else ""
        return mix + rest


def _name(prompt: Audited, kind: str) -> str | None:
    return {"prompt": prompt.id, "group": prompt.group, "category": prompt.category}[kind]


def _spread(
    names: Mapping[Audited, str | None],
    shares: Mapping[str, float],
    bases: Sequence[str],
    prompts: Sequence[Audited],
) -> list[float]:
    """The share of each name, evenly over its base prompts, and that of a base prompt over its prompts."""
    sizes = Counter((names[p], base) for p, base in zip(prompts, bases, strict=True))
    counts = Counter(name for name, _ in sizes)
    return [
        shares.get(name, 0.0) / counts[name] / sizes[name, base] if (name := names[p]) is not None else 0.0
        for p, base in zip(prompts, bases, strict=True)
    ]


def read_traffic(path: Path) -> Traffic:
    """The mix in a file. ``ConfigError`` names the file, the entry and what is allowed."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ConfigError(f"--traffic {path}: unknown suffix; one of {', '.join(SUFFIXES)}")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--traffic {path}: cannot be read ({error})") from None
    if suffix == ".csv":
        return _checked(_from_csv(text, path), path)
    try:
        data = json.loads(text, object_pairs_hook=_once) if suffix == ".json" else parse(text, str(path)).data
    except ValueError as error:
        raise ConfigError(f"{path}: not valid JSON: {error}") from None
    return _checked(data, path)


def _once(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"doubled key {key!r}")
        found[key] = value
    return found


def _from_csv(text: str, path: Path) -> dict[str, Any]:
    reader = csv.DictReader(text.splitlines())
    columns = [c.strip().lower() for c in reader.fieldnames or ()]
    kinds = [kind for kind in KINDS if kind in columns]
    if len(kinds) != 1 or "weight" not in columns:
        raise ConfigError(f"{path}: needs the column weight and one of prompt, group, category")
    weights: dict[str, Any] = {}
    for row in reader:
        plain = {(k or "").strip().lower(): (v or "") for k, v in row.items() if not isinstance(v, list)}
        name = plain[kinds[0]].strip()
        if name in weights:
            raise ConfigError(f"{path}:{reader.line_num}: {name!r} for the second time")
        try:
            weights[name] = float(plain["weight"])
        except ValueError:
            raise ConfigError(
                f"{path}:{reader.line_num}: weight {plain['weight']!r} is not a number"
            ) from None
    return {KINDS[kinds[0]]: weights}


def _checked(data: Any, path: Path) -> Traffic:
    allowed = f"one of {', '.join(KINDS.values())}, and {HARMLESS} if some is harmless"
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: a traffic mix is a mapping with {allowed}")
    if extra := [key for key in data if key not in (*KINDS.values(), HARMLESS)]:
        raise ConfigError(f"{path}: unknown key {extra[0]!r}; give {allowed}")
    kinds = [kind for kind, key in KINDS.items() if key in data]
    if len(kinds) > 1 or not data:
        raise ConfigError(f"{path}: give {allowed}")
    harmless = data.get(HARMLESS, 0.0)
    if not _is_number(harmless) or not 0 <= harmless < 1:
        raise ConfigError(f"{path}: {HARMLESS}: {harmless!r} is not a share from 0 up to, not with, 1")
    if not kinds:
        return Traffic(harmless=float(harmless), source=str(path))
    weights = data[KINDS[kinds[0]]]
    if not isinstance(weights, dict) or not weights:
        raise ConfigError(f"{path}: {KINDS[kinds[0]]}: give at least one name with its weight")
    for name, weight in weights.items():
        if not _is_number(weight) or not (weight >= 0 and math.isfinite(weight)):
            raise ConfigError(f"{path}: {KINDS[kinds[0]]}.{name}: {weight!r} is not a weight of zero or more")
    if not math.fsum(weights.values()) > 0:
        raise ConfigError(f"{path}: {KINDS[kinds[0]]}: all weights are zero")
    return Traffic(
        kind=kinds[0],
        weights={str(k): float(v) for k, v in weights.items()},
        harmless=float(harmless),
        source=str(path),
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
