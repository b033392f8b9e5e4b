"""The identity of a run: written once, compared on every resume.

What defines the draws and their order may not change under a run that has begun: target, proposals, judge,
prompts, seed, budget, stopping rule, method, and the content hashes the caller gives (models, adapters,
templates). Where and how the work is done (``cluster``, ``tracking``, the run's place) may.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from tailrisk import __version__
from tailrisk.config import Config
from tailrisk.configfile import dump_resolved
from tailrisk.errors import StoreError
from tailrisk.judgeconfig import judge_identity
from tailrisk.prompts import prompt_digest, prompts_digest
from tailrisk.records import Prompt
from tailrisk.store.atomic import write_json_atomic

FORMAT = 1
NAME = "manifest.json"
_PACKAGES = (
    "torch", "transformers", "tokenizers", "peft", "safetensors",
    "numpy", "scipy", "arviz-stats", "ray", "mlflow",
)  # fmt: skip
_IDENTITY = ("target", "proposals", "judge", "strong_judge", "budget", "stop", "method")
_NUMERIC = ("torch", "transformers")
"""Packages whose version changes the numbers: other ones are noted, these refuse a resume."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """``identity`` is compared on resume; ``config`` is the whole resolved configuration; ``prompts`` has
    id, category, group, perturbation and digest of every prompt (never its text); ``hashes`` come from the caller."""

    identity: dict[str, Any]
    config: dict[str, Any]
    prompts: list[dict[str, Any]]
    hashes: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    created: str = ""
    format: int = FORMAT

    @property
    def component_names(self) -> tuple[str, ...]:
        """Names of the laws that were drawn from and scored; component 0 is the target."""
        return Config.model_validate(self.config).component_names


def make_manifest(
    config: Config, prompts: Sequence[Prompt], hashes: Mapping[str, str] | None = None
) -> Manifest:
    """The manifest of a run that is to begin now, or to be resumed.

    ``hashes`` are content digests by name (``target.weights``, ``adapter.rude``, ...); a change of one
    refuses the resume as a change of the configuration does.
    """
    resolved = dump_resolved(config)
    hashes = dict(sorted((hashes or {}).items()))
    identity = {
        **_identity(resolved),
        "run": {"seed": resolved["run"]["seed"]},
        "prompts": {"count": len(prompts), "digest": prompts_digest(prompts)},
        "hashes": hashes,
    }
    return Manifest(
        identity=identity,
        config=resolved,
        prompts=[
            {
                "id": p.id,
                "category": p.category,
                "group": p.group,
                "perturbation": p.perturbation,
                "digest": prompt_digest(p),
            }
            for p in prompts
        ],
        hashes=hashes,
        versions=_versions(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def listed_prompts(manifest: Manifest) -> list[Prompt]:
    """The run's prompts as far as the manifest knows them: without messages, on which no estimate depends."""
    return [
        Prompt(
            id=p["id"],
            messages=(),
            category=p["category"],
            group=p["group"],
            perturbation=p.get("perturbation"),
        )
        for p in manifest.prompts
    ]


def write_manifest(folder: Path, manifest: Manifest) -> None:
    write_json_atomic(folder / NAME, asdict(manifest))


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a run folder; ``StoreError`` if there is none or it cannot be read."""
    path = folder / NAME
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StoreError(f"{folder}: not a run folder, it has no {NAME}") from None
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: cannot be read ({error}); restore it from a copy") from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise StoreError(
            f"{path}: not a manifest of format {FORMAT}; read it with the tailrisk that wrote it"
        )
    try:
        return Manifest(**data)
    except TypeError as error:
        raise StoreError(f"{path}: a key is missing or unknown ({error})") from error


def check_resume(folder: Path, stored: Manifest, new: Manifest) -> list[str]:
    """Notes on what changed and may; ``StoreError`` listing every field that may not differ."""
    fields = [
        (name, before, now)
        for name, before, now in differences(_with_defaults(stored), new.identity)
        if before != now
    ]
    versions = [
        (name, stored.versions.get(name, "none"), new.versions.get(name, "none"))
        for name in dict.fromkeys([*stored.versions, *new.versions])
        if stored.versions.get(name) != new.versions.get(name)
    ]
    fields += [(f"version of {name}", a, b) for name, a, b in versions if name in _NUMERIC]
    if fields:
        lines = "\n".join(
            f"  {name}: {shortened(before)} -> {shortened(now)}" for name, before, now in fields
        )
        raise StoreError(
            f"{folder}: this run was begun with other settings and cannot be resumed with these:\n{lines}\n"
            "Give the new audit another run.name, put the old values back, or delete the folder."
        )
    notes = [f"{name} was {a} when the run began and is {b} now" for name, a, b in versions]
    before, now = (m.config.get("judge", {}).get("url") for m in (stored, new))
    if before != now:
        notes.append(f"judge.url was {before} when the run began and is {now} now: is it the same model?")
    return notes


def _with_defaults(stored: Manifest) -> dict[str, Any]:
    """The identity as this version writes it: keys that are newer than the run have their defaults in it."""
    try:
        resolved = dump_resolved(Config.model_validate(stored.config))
    except ValueError:
        return stored.identity
    return {**stored.identity, **_identity(resolved)}


def as_now(stored: Manifest) -> Manifest:
    """A run's own manifest, to open the run with where nothing of it changes: as this version would write it."""
    return replace(stored, identity=_with_defaults(stored))


def _identity(resolved: Mapping[str, Any]) -> dict[str, Any]:
    """What may not change of the configuration; of the judge, what its verdicts depend on."""
    sections = {section: resolved[section] for section in _IDENTITY}
    return {**sections, "judge": judge_identity(resolved["judge"])}


_MISSING = "(not there)"


def differences(a: Any, b: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Every leaf of two nested values by its dotted name, equal ones too; ``(not there)`` where one has none."""
    if isinstance(a, dict) and isinstance(b, dict):
        for key in dict.fromkeys([*a, *b]):
            yield from differences(a.get(key, _MISSING), b.get(key, _MISSING), f"{path}.{key}".lstrip("."))
    elif isinstance(a, list) and isinstance(b, list):
        for i in range(max(len(a), len(b))):
            left, right = (side[i] if i < len(side) else _MISSING for side in (a, b))
            yield from differences(left, right, f"{path}.{i}")
    else:
        yield path, a, b


def shortened(value: Any) -> str:
    """A value as a line of JSON, cut where it is long."""
    text = value if value is _MISSING else json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _versions() -> dict[str, str]:
    versions = {"tailrisk": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions
