"""Section 9: what someone needs who wants to get these numbers again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tailrisk.report import terminal
from tailrisk.report.clean import visible
from tailrisk.report.material import Material
from tailrisk.report.replay import Replay
from tailrisk.store import Manifest


@dataclass(frozen=True, kw_only=True)
class Reproduction:
    """``config``: the resolved configuration as JSON text, safe to look at."""

    facts: tuple[tuple[str, str], ...]
    versions: tuple[tuple[str, str], ...]
    hashes: tuple[tuple[str, str], ...]
    config: str


def reproduction_view(m: Material) -> Reproduction:
    return Reproduction(
        facts=tuple(facts(m.manifest, m.totals, m.replay)),
        versions=tuple((visible(name), visible(version)) for name, version in m.manifest.versions.items()),
        hashes=tuple((visible(name), visible(value)) for name, value in m.manifest.hashes.items()),
        config=visible(json.dumps(m.config, indent=2, ensure_ascii=False), lines=True),
    )


def facts(manifest: Manifest, totals: Mapping[str, Any], replayed: Replay) -> list[tuple[str, str]]:
    """Name and value of what is known of the run as a whole."""
    listed = [
        ("begun", visible(manifest.created)),
        ("seed", str(manifest.config["run"]["seed"])),
        ("draws", f"{sum(map(sum, replayed.draws.values())):,} of {manifest.config['budget']['draws']:,}"),
        ("generated tokens", f"{replayed.tokens:,}"),
        ("time in workers", f"{replayed.seconds:,.0f} s"),
        ("draws the judge failed on", str(replayed.judge_errors)),
    ]
    if calls := terminal.judge_line(totals):
        name, _, value = calls.partition(": ")
        listed.append((name, value))
    listed += [
        (visible(key.replace("_", " ")), visible(plain(value))) for key, value in sorted(totals.items())
    ]
    listed.append(
        ("prompt set", f"{len(manifest.prompts)} prompts, {visible(plain(manifest.identity['prompts']))}")
    )
    return listed


def plain(value: Any) -> str:
    """A JSON value in one line for a reader."""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {plain(inner)}" for key, inner in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(plain, value))
    return "-" if value is None else str(value)
