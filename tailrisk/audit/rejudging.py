"""Another judge over the draws that a run has: nothing is drawn, both judgements stay in the log.

The run's plans were made under the verdicts of its own judge. That harms no other event: given all rounds before it a
round's draws come from laws that are known, so its mean of w h' is unbiased for any h', and so is their combination
with masses that were fixed before each round (``tailrisk.stats.estimators``). Certified intervals hold for the same
reason. What differs is how well the draws fit: shares were chosen for what the first judge calls harm.

What was judged is in the log at once, so a judging that was interrupted goes on where it was, and after more draws
only these are judged. Answers that the judge failed on are tried again each time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tailrisk.audit.drawweights import DrawWeights, draw_scales
from tailrisk.audit.estimates import estimate_all
from tailrisk.audit.judging import JudgeWatch
from tailrisk.audit.protocols import AnswersToJudge, JudgeWorkers, LawCard
from tailrisk.audit.recovery import known_error, logged_laws, rebuild
from tailrisk.audit.results import weighted_hits
from tailrisk.audit.state import AuditState
from tailrisk.audit.totals import totals
from tailrisk.config import Config
from tailrisk.errors import StoreError
from tailrisk.records import BatchResult, JudgedTexts, Prompt
from tailrisk.stats import Estimate
from tailrisk.stats.judging import agreement_of
from tailrisk.store import (
    OtherJudge,
    Record,
    RunStore,
    final_results,
    judgements,
    replay,
    write_hits,
    write_json_atomic,
)

JUDGES = "judges"
"""Folder in the run folder that has one for each further judge."""


class Rejudged(NamedTuple):
    """``batches`` that were judged now, and ``kept``, those that had been before."""

    batches: int
    kept: int


def home(folder: Path, name: str) -> Path:
    """Where the results of the judge of this name are."""
    return folder / JUDGES / name


def rejudge(
    store: RunStore, judge: OtherJudge, workers: JudgeWorkers, *, told: Callable[[int], None] = lambda n: None
) -> Rejudged:
    """Has every draw in the log judged that ``judge`` has not judged yet; ``told``: how many batches so far.

    Raises:
        JudgeError: it keeps failing; what it has judged is kept.
        StoreError: the log cannot be written, or knows another judge by this name.
    """
    store.append_judge(judge)
    before = judgements(store.folder, judge.name)
    kept = 0

    def asked() -> Iterator[AnswersToJudge]:
        nonlocal kept
        for result in final_results(store.folder):
            said = before.get(result.batch.key)
            rows = range(result.n) if said is None else [i for i, error in enumerate(said.errors) if error]
            if not rows:
                kept += 1
                continue
            yield AnswersToJudge(result.batch.key, result.batch.prompt_id, [result.texts[i] for i in rows])

    watch = JudgeWatch()
    done = 0
    for some, judged in workers.judge_all(asked()):
        store.append_judgement(judge, some.key, _together(before.get(some.key), judged))
        done += 1
        told(done)
        watch.count(judged.errors)
    watch.round_done()
    return Rejudged(done, kept)


def _together(before: JudgedTexts | None, judged: JudgedTexts) -> JudgedTexts:
    """``judged`` in the place of what had errors ``before``."""
    if before is None:
        return judged
    verdicts, scores, errors = before.verdicts.copy(), before.scores.copy(), list(before.errors)
    again = [i for i, error in enumerate(errors) if error]
    verdicts[again], scores[again] = judged.verdicts, judged.scores
    for i, error in zip(again, judged.errors, strict=True):
        errors[i] = error
    return JudgedTexts(verdicts, scores, errors)


def judged_state(
    config: Config, prompts: Sequence[Prompt], laws: LawCard, folder: Path, name: str
) -> AuditState:
    """What the log says under the verdicts of another judge, which must have judged all of it. Not for planning.

    Raises:
        StoreError: it has not.
    """
    said = judgements(folder, name)

    def records() -> Iterator[Record]:
        for record in replay(folder, {"plan", "batch", "failure"}):
            if isinstance(record, BatchResult):
                judged = said.get(record.batch.key)
                if judged is None:
                    raise StoreError(
                        f"{folder}: judge {name!r} has not judged batch {record.batch.key}; rejudge the run again"
                    )
                record = _under(record, judged)
            yield record

    # Its word counts on every draw: a strong judge's sample is about the run's own.
    alone = config.model_copy(update={"strong_judge": None})
    state = rebuild(alone, prompts, laws, records())
    state.judge = known_error(config, home(folder, name))
    return state


def _under(result: BatchResult, judged: JudgedTexts) -> BatchResult:
    return replace(result, verdicts=judged.verdicts, scores=judged.scores, judge_errors=judged.errors)


def write_judged(
    config: Config, prompts: Sequence[Prompt], folder: Path, judge: OtherJudge
) -> tuple[list[Estimate], dict[str, Any]]:
    """Writes ``judges/NAME``: estimates.json and hits.jsonl, as the audit's own, and what both judges say of the draws.

    Returns the estimates and the totals.
    """
    laws = logged_laws(replay(folder, {"note"}))
    if laws is None:
        raise StoreError(f"{folder}: nothing has been drawn yet, so there is nothing to judge")
    state = judged_state(config, prompts, laws, folder, judge.name)
    estimates = estimate_all(state)
    spent = totals(state, estimates)
    place = home(folder, judge.name)
    place.mkdir(parents=True, exist_ok=True)
    told = {
        "name": judge.name,
        "digest": judge.digest,
        "settings": judge.settings,
        "agreement": agreement(state, folder, judge.name),
    }
    parts = {"audit": spent, "judge": told, "estimates": (e.to_json() for e in estimates)}
    write_json_atomic(place / "estimates.json", parts)
    write_hits(place, weighted_hits(final_results(folder, judge.name), state, estimates))
    return estimates, spent


def agreement(state: AuditState, folder: Path, name: str) -> dict[str, Any]:
    """Two [3, 3] tables by verdict (safe, harm, undetermined), the run's own judge first: ``draws`` as they were
    drawn, and ``probability``, the mean over prompts of what the target's answers are (None before a round is done)."""
    weights, scales = DrawWeights(state), draw_scales(state)
    said = judgements(folder, name)
    draws, mass = np.zeros((3, 3), dtype=np.int64), np.zeros((3, 3))
    for result in final_results(folder):
        judged = said[result.batch.key]
        draws += agreement_of(result.verdicts, judged.verdicts)
        scale = scales.get((result.batch.prompt_id, result.batch.round), 0.0)
        if scale:
            cells = 3 * result.verdicts.astype(np.int64) + judged.verdicts
            mass += scale * np.bincount(cells, weights=weights(result), minlength=9).reshape(3, 3)
    counted = len({prompt for prompt, _ in scales})
    return {"draws": draws.tolist(), "probability": (mass / counted).tolist() if counted else None}
