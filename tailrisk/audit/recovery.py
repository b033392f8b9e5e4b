"""From a log back to a state: resuming, showing, reporting."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tailrisk.audit.processors import add_note
from tailrisk.audit.protocols import LawCard
from tailrisk.audit.state import AuditState
from tailrisk.config import Config
from tailrisk.errors import StoreError
from tailrisk.records import BatchFailure, BatchResult, Prompt, RoundPlan
from tailrisk.stats.judgeerror import JudgeBounds, judge_bounds
from tailrisk.stats.judging import Confusion
from tailrisk.store import Asked, Note, Record, RunStore, Told, Verdicts, replay
from tailrisk.store.checkfile import kept_check

LAWS_NOTE = "laws"


def rebuild(
    config: Config, prompts: Sequence[Prompt], laws: LawCard, records: Iterable[Record]
) -> AuditState:
    """The state that a log stands for; also for reading a run that is still going."""
    state = AuditState(config, prompts, laws)
    for record in records:
        add_record(state, record)
    return state


def add_record(state: AuditState, record: Record) -> None:
    match record:
        case RoundPlan():
            state.add_plan(record)
        case BatchResult() | BatchFailure():
            state.add_outcome(record)
        case Verdicts():
            judged = record.judged
            state.add_verdicts(record.key, judged.verdicts, judged.errors, judged.calls)
        case Asked():
            state.add_asked(record)
        case Told():
            state.add_told(record)
        case Note():
            add_note(state, record)
        case _:
            pass


def finished_rounds(
    config: Config, prompts: Sequence[Prompt], laws: LawCard, records: Iterable[Record]
) -> Iterator[AuditState]:
    """The state at the end of each finished round of a log, the last one too: the same object every time."""
    state = AuditState(config, prompts, laws)
    for record in records:
        if isinstance(record, RoundPlan) and state.round >= 0 and not state.pending:
            yield state
        add_record(state, record)
    if state.round >= 0 and not state.pending:
        yield state


def logged_laws(records: Iterable[Record]) -> LawCard | None:
    """The laws that a log's draws came from; None if nothing was drawn yet."""
    for record in records:
        if isinstance(record, Note) and record.text == LAWS_NOTE:
            data = record.data
            return LawCard(tuple(data["names"]), tuple(data["fingerprints"]), bool(data["corrected"]))
    return None


def rebuild_folder(config: Config, prompts: Sequence[Prompt], folder: Path) -> AuditState | None:
    """The state of a run folder, without its lock and without models; None if nothing was drawn yet."""
    laws = logged_laws(replay(folder, {"note"}))
    if laws is None:
        return None
    state = rebuild(config, prompts, laws, replay(folder))
    state.judge = known_error(config, folder)
    return state


def known_error(config: Config, folder: Path) -> JudgeBounds | None:
    """What the check that ``folder`` keeps says of the judge; None without one."""
    check = kept_check(folder)
    return None if check is None else judge_bounds(Confusion(*check.counts), config.stop.confidence)


def claim_laws(store: RunStore, laws: LawCard) -> None:
    """Draws of different laws are never mixed, whatever the manifest was able to notice."""
    before = logged_laws(replay(store.folder, {"note"}))
    if before is None:
        store.append_note(
            LAWS_NOTE, **{k: v if k == "corrected" else list(v) for k, v in laws._asdict().items()}
        )
    elif before != laws:
        changed = [
            name
            for i, name in enumerate(before.names)
            if laws.names[i : i + 1] != (name,)
            or laws.fingerprints[i : i + 1] != before.fingerprints[i : i + 1]
        ]
        raise StoreError(
            f"{store.folder}: its draws came from other laws (changed: {', '.join(changed) or 'numerics'}). "
            "A model, adapter, direction or template is not the one the run began with: put it back, or use "
            "another run.name"
        )
