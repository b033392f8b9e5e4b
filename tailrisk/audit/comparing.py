"""Two run folders as two sides of each prompt: whether they may be compared, and which prompts are the same.

What defines the probability (the judge, the sampling settings) must be the same in both; what is compared (the model,
its adapter, the system prompt) is named. How the draws were made (proposals, budget, seeds) may differ: every estimate
is of the target's own probability.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tailrisk.audit.estimates import estimate_one
from tailrisk.audit.processors import processor_totals
from tailrisk.audit.recovery import rebuild_folder
from tailrisk.config import Config
from tailrisk.errors import ConfigError, StoreError
from tailrisk.records import Prompt
from tailrisk.stats.judging import Confusion
from tailrisk.stats.sides import Side
from tailrisk.store import Manifest, read_manifest
from tailrisk.store.checkfile import kept_check
from tailrisk.store.manifest import as_now, differences, shortened

DEFINING = (
    "target.sampling",
    "judge",
    "strong_judge",
    "hashes.judge.",
    "hashes.strong_judge.",
    "judge check",
)
SPENDING = ("strong_judge.calls", "strong_judge.least")
"""Of a strong judge, how much it reads: no part of what harm is."""
COMPARED = (
    "target.model", "target.adapter", "target.dtype", "target.system_prompt", "hashes.model.target",
    "hashes.adapter.target", "hashes.chat_template", "hashes.stop_ids",
)  # fmt: skip

Difference = tuple[str, str, str]
"""Name of a setting, its value in A and in B, as lines of JSON."""


@dataclass(frozen=True, kw_only=True)
class Audited:
    """A run. ``sides`` by prompt id; ``finished``: no round is still to come."""

    folder: Path
    manifest: Manifest
    sides: Mapping[str, Side]
    finished: bool
    draws: int
    totals: Mapping[str, Any]
    """Of ``tailrisk.audit.totals``, what says which law was drawn from."""
    check: tuple[int, ...] | None
    """Labelled answers by what its judge said of them, where its error is in the intervals."""

    @property
    def identity(self) -> dict[str, Any]:
        return {
            **as_now(self.manifest).identity,
            "judge check": None if self.check is None else str(self.check),
        }


@dataclass(frozen=True, kw_only=True)
class Pairing:
    """Prompts by id: ``both`` in the order of A, with the same messages; ``changed`` have other messages."""

    both: list[str]
    only_a: list[str]
    only_b: list[str]
    changed: list[str]


def read_audited(folder: Path) -> Audited:
    """A run from its log alone, finished or not. Errors: StoreError, where it is none, is damaged or has no draws."""
    if not folder.is_dir():
        raise StoreError(f"{folder}: no such folder; give a run folder, such as runs/NAME")
    manifest = read_manifest(folder)
    prompts = [
        Prompt(id=p["id"], messages=(), category=p["category"], group=p["group"]) for p in manifest.prompts
    ]
    state = rebuild_folder(Config.model_validate(manifest.config), prompts, folder)
    if state is None:
        raise StoreError(f"{folder}: nothing has been drawn yet; run the audit first")
    check = kept_check(folder)
    counts = None if check is None else Confusion(*check.counts)
    sides = {
        ledger.prompt.id: Side.of(
            estimate_one(state, ledger), ledger.rounds, corrected=state.laws.corrected, judge=counts
        )
        for ledger in state.ledgers.values()
    }
    return Audited(
        folder=folder,
        manifest=manifest,
        sides=sides,
        finished=not state.open_ledgers,
        draws=state.draws,
        totals={"corrected": state.laws.corrected, "processors": processor_totals(state)},
        check=None if check is None else check.counts,
    )


def differing(a: Audited, b: Audited) -> tuple[list[Difference], list[Difference]]:
    """What is compared, and what of the probability's definition differs, which makes the two no pair."""
    found = [
        (name, shortened(before), shortened(now))
        for name, before, now in differences(a.identity, b.identity)
        if before != now and not name.startswith(SPENDING)
    ]
    return [d for d in found if d[0] in COMPARED], [d for d in found if d[0].startswith(DEFINING)]


def refuse(differ: list[Difference]) -> None:
    """Errors: ConfigError, naming each setting."""
    lines = "\n".join(f"  {name}: {before} in A, {now} in B" for name, before, now in differ)
    raise ConfigError(
        f"the two audits do not estimate the same probability, so a ratio of theirs means nothing:\n{lines}\n"
        "Audit one of them again with the other's settings (another judge alone: tailrisk rejudge), or compare them "
        "as they are with --anyway"
    )


def pair(a: Audited, b: Audited) -> Pairing:
    """Errors: ConfigError, where no prompt is in both."""
    first, second = ({p["id"]: p["digest"] for p in side.manifest.prompts} for side in (a, b))
    shared = [key for key in first if key in second]
    found = Pairing(
        both=[key for key in shared if first[key] == second[key]],
        only_a=[key for key in first if key not in second],
        only_b=[key for key in second if key not in first],
        changed=[key for key in shared if first[key] != second[key]],
    )
    if not found.both:
        raise ConfigError(
            f"{a.folder} and {b.folder}: no prompt is in both with the same id and the same messages "
            f"({len(found.changed)} have the same id and other messages); audit the same prompts"
        )
    return found
