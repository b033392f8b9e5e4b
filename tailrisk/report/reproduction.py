"""Section 9: what someone needs who wants to get these numbers again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tailrisk.report import terminal
from tailrisk.report.clean import visible
from tailrisk.report.exhibit import Table, table
from tailrisk.report.material import Material
from tailrisk.report.processors import drawn_on
from tailrisk.report.replay import Replay
from tailrisk.store import Manifest


@dataclass(frozen=True, kw_only=True)
class Command:
    """``source``: commit of the source that ran, and whether it had changes; '' where it was not in a repository."""

    line: str
    source: str


@dataclass(frozen=True, kw_only=True)
class Reproduction:
    """``commands``: of each sitting that told its own. ``segments``: files of the log with their SHA-256. ``config``:
    the resolved configuration as JSON text, safe to look at."""

    commands: tuple[Command, ...]
    segments: Table
    tracking: tuple[tuple[str, str], ...]
    facts: tuple[tuple[str, str], ...]
    versions: tuple[tuple[str, str], ...]
    hashes: tuple[tuple[str, str], ...]
    config: str


def reproduction_view(m: Material) -> Reproduction:
    return Reproduction(
        commands=tuple(
            Command(line=visible(c.get("line", "")), source=visible(c.get("source", "")))
            for c in m.events.commands
        ),
        segments=table(("file", "bytes", "sha256"), _segments(m.folder)),
        tracking=tuple(_tracking(m)),
        facts=tuple(facts(m.manifest, m.totals, m.replay)),
        versions=tuple((visible(name), visible(version)) for name, version in m.manifest.versions.items()),
        hashes=tuple((visible(name), visible(value)) for name, value in m.manifest.hashes.items()),
        config=visible(json.dumps(m.config, indent=2, ensure_ascii=False), lines=True),
    )


def _segments(folder: Path) -> list[tuple[str, int, str]]:
    """Files of the log as they are now; the last one grows while a run goes on."""
    listed = []
    for path in sorted((folder / "log").glob("*.jsonl")):
        with path.open("rb") as file:
            listed.append(
                (
                    f"log/{visible(path.name)}",
                    path.stat().st_size,
                    hashlib.file_digest(file, "sha256").hexdigest(),
                )
            )
    return listed


def _tracking(m: Material) -> list[tuple[str, str]]:
    settings = m.config.get("tracking") or {}
    try:
        run_id = (m.folder / "mlflow_run_id").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        run_id = ""
    told = [("MLflow run", run_id), ("MLflow experiment", settings.get("experiment") if run_id else "")]
    return [(name, visible(str(value))) for name, value in told if value]


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
    if on := drawn_on(totals):
        listed.append(("drawn on", on))
    if calls := terminal.judge_line(totals):
        name, _, value = calls.partition(": ")
        listed.append((name, value))
    listed += [
        (visible(key.replace("_", " ")), visible(plain(value)))
        for key, value in sorted(totals.items())
        if key != "processors"
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
