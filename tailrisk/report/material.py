"""What all sections of a report are made of: the run folder, read once.

``gather`` reads the manifest, the estimates and, in one pass, the log; each section then has a function from
``Material`` to a plain dataclass, its view, which the HTML page, report.json and the Markdown form are written from.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tailrisk.errors import StoreError
from tailrisk.records import Status
from tailrisk.report import tables
from tailrisk.report.eventlog import EventLog, read_events
from tailrisk.report.replay import Replay, read
from tailrisk.report.running import History, Running
from tailrisk.report.sensitivity import Sensitivity, Tally
from tailrisk.report.tables import Row
from tailrisk.report.weighed import Weighed
from tailrisk.report.wholedraws import WholeDraws
from tailrisk.report.words import threshold_of
from tailrisk.stats import RoundDraws
from tailrisk.store import Manifest, read_manifest

MOST_PROMPTS = 1000
"""Prompts that are listed one by one, the largest upper ends; a browser does not show a hundred thousand rows."""
WORST = 10
"""Prompts of which statements are made that hold for all prompts at once."""
TRACED = 12
"""Prompts whose estimates are followed round by round."""
FIRST_ROUND = {"mixture": "pilot", "paper": "search", "search": "search"}
"""Method -> what its round 0 is called."""


@dataclass(frozen=True, kw_only=True)
class Material:
    """``rows``: all prompts, the largest upper end first; ``shown``: those that are listed one by one; ``judged``: what
    is known of the probability of what is *judged* harm, by prompt, which is the rows' own where the judge's error is
    not known. ``running``: None with a strong judge, whose word is not had draw by draw. ``whole``: draws of the
    ``WORST`` prompts, as far as they are few enough to be held. ``redact``: no answer is shown."""

    folder: Path
    manifest: Manifest
    summary: Mapping[str, Any]
    rows: Sequence[Row]
    shown: Sequence[Row]
    judged: Mapping[str, Row]
    replay: Replay
    sensitivity: Sensitivity | None
    running: Running | None
    whole: Mapping[str, Sequence[RoundDraws]]
    events: EventLog
    redact: bool

    @property
    def config(self) -> dict[str, Any]:
        return self.manifest.config

    @property
    def totals(self) -> Mapping[str, Any]:
        """The "audit" part of estimates.json."""
        return self.summary.get("audit") or {}

    @property
    def method(self) -> str:
        return (self.config.get("method") or {}).get("kind", "mixture")

    @property
    def first_round(self) -> str:
        return FIRST_ROUND.get(self.method, "pilot")

    @property
    def confidence(self) -> float:
        return float(self.config["stop"]["confidence"])

    @property
    def strong(self) -> bool:
        """Whether a strong judge's word is what counts."""
        return any(r.strong for r in self.rows)


def gather(run_folder: Path, *, redact: bool = False, summary: Mapping[str, Any] | None = None) -> Material:
    """``summary`` is what estimates.json holds; give it for a run that has none yet because it is still going on.

    Raises:
        StoreError: not a run folder, no estimates yet, or a damaged log.
    """
    folder = Path(run_folder)
    manifest = read_manifest(folder)
    summary = summary if summary is not None else read_summary(folder)
    listed = tables.rows(summary["estimates"])
    shown = listed[:MOST_PROMPTS]
    strong = any(r.strong for r in listed)
    settled = [r.prompt_id for r in listed if r.status is not Status.FAILED]
    tally, history = Tally(threshold_of(manifest.config["judge"])), History()
    whole = WholeDraws([] if strong else settled[:WORST])

    def seen(weighed: Weighed) -> None:
        tally.add(weighed)
        if not strong:
            history.add(weighed)
            whole.add(weighed)

    replayed = read(
        folder,
        manifest.component_names,
        corrected=bool((summary.get("audit") or {}).get("corrected")),
        shown={r.prompt_id for r in shown},
        seen=seen,
    )
    confidence = float(manifest.config["stop"]["confidence"])
    return Material(
        folder=folder,
        manifest=manifest,
        summary=summary,
        rows=listed,
        shown=shown,
        judged=_judged(summary["estimates"], listed),
        replay=replayed,
        sensitivity=tally.done(tuple(replayed.failures)),
        running=None if strong else history.done(settled[:TRACED], replayed.rounds, confidence),
        whole=whole.rounds(),
        events=read_events(folder),
        redact=redact,
    )


def _judged(records: Sequence[Mapping[str, Any]], listed: Sequence[Row]) -> dict[str, Row]:
    """``listed``: the rows of these records."""
    if not any("corrected" in record for record in records):
        return {r.prompt_id: r for r in listed}
    rows = (tables.row({k: v for k, v in record.items() if k != "corrected"}) for record in records)
    return {r.prompt_id: r for r in rows}


def read_summary(folder: Path) -> dict[str, Any]:
    """estimates.json of a finished run."""
    path = folder / "estimates.json"
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StoreError(f"{folder}: no estimates.json yet; run the audit to its end first") from None
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: cannot be read ({error}); resume the audit to write it again") from error
    if not isinstance(summary, dict) or not isinstance(summary.get("estimates"), list):
        raise StoreError(f"{path}: holds no list of estimates; resume the audit to write it again")
    return summary
