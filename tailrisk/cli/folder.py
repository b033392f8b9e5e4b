"""A run folder as ``show`` and ``report`` need it: the numbers of a finished run, or of one going on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tailrisk.errors import StoreError


def summary_of(folder: Path) -> dict[str, Any]:
    """What estimates.json holds; computed from the log where the run has not written it yet.

    ``audit`` of an unfinished run holds ``finished: False``, draws, tokens, rounds, corrected, processors and judge
    only.

    Raises:
        StoreError: not a run folder, or a damaged one.
    """
    from tailrisk.report import read_summary

    if not folder.is_dir():
        raise StoreError(f"{folder}: no such folder; give a run folder, such as runs/NAME")
    if (folder / "estimates.json").exists():
        return read_summary(folder)
    return _from_log(folder)


def _from_log(folder: Path) -> dict[str, Any]:
    from tailrisk.audit.estimates import estimate_all
    from tailrisk.audit.groups import groups_record
    from tailrisk.audit.processors import processor_totals
    from tailrisk.audit.recovery import rebuild_folder
    from tailrisk.audit.review import review_record
    from tailrisk.audit.totals import judge_totals, strong_totals
    from tailrisk.config import Config
    from tailrisk.store import listed_prompts, read_manifest

    manifest = read_manifest(folder)
    state = rebuild_folder(Config.model_validate(manifest.config), listed_prompts(manifest), folder)
    if state is None:
        raise StoreError(
            f"{folder}: nothing has been drawn yet; look again later, or run the audit again to resume it"
        )
    totals = {
        "finished": False,
        "draws": state.draws,
        "tokens": state.tokens,
        "rounds": state.round + 1,
        "corrected": state.laws.corrected,
        "processors": processor_totals(state),
        "judge": judge_totals(state),
        **({} if state.config.strong_judge is None else {"strong": strong_totals(state)}),
    }
    estimates = estimate_all(state)
    more = {"groups": groups_record(state, estimates), "review": review_record(state)}
    return {
        "audit": totals,
        "estimates": [estimate.to_json() for estimate in estimates],
        **{name: part for name, part in more.items() if part is not None},
    }
