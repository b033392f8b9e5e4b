"""The audit: replay the log, plan a round, run it, look, go on or stop.

The truth is the log. The state is what the log says, a plan is a function of the configuration and the
state, and everything written at the end can be written again from the log.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from tailrisk.audit.estimates import estimate_all
from tailrisk.audit.estimating import Estimator
from tailrisk.audit.judging import JudgeWatch, judge_again
from tailrisk.audit.methods import plan_round
from tailrisk.audit.outcome import AuditOutcome
from tailrisk.audit.processors import claim_processor
from tailrisk.audit.protocols import Executor, LawCard, Observer, Remembers
from tailrisk.audit.recovery import claim_laws, known_error, rebuild
from tailrisk.audit.results import write_results
from tailrisk.audit.searchrecord import search_record
from tailrisk.audit.state import AuditState
from tailrisk.audit.strong import ask, plan_strong, waiting
from tailrisk.audit.totals import totals
from tailrisk.config import Config
from tailrisk.errors import ModelError
from tailrisk.garbage import collected_seldom, give_back
from tailrisk.records import BatchFailure, Prompt, Status
from tailrisk.store import RunStore, final_results, judged_answers

logger = logging.getLogger(__name__)


def run_audit(
    config: Config,
    prompts: Sequence[Prompt],
    laws: LawCard,
    executor: Executor,
    store: RunStore,
    *,
    observers: Sequence[Observer] = (),
) -> AuditOutcome:
    """Runs or resumes the audit of an opened run folder to its end and writes its results.

    ``laws`` are the names, fingerprints and numerics of the laws the executor draws from (``LawCard.of``);
    executor and store stay open and belong to the caller. Returns with exit code 0 (all prompts ok) or 3.
    Raises JudgeError when the judge keeps failing (nothing drawn is lost), ModelError when every prompt
    failed, StoreError when the folder cannot be written or was drawn from other laws. Ctrl-C passes through;
    run again to resume.
    """
    began = time.monotonic()
    watchers = Watchers(observers)
    with collected_seldom():
        state = run_rounds(config, prompts, laws, executor, store, watchers)
        outcome = _finish(state, store, watchers, time.monotonic() - began)
    # What comes after, a report for one, needs the memory for other things.
    del state
    give_back()
    return outcome


def run_rounds(
    config: Config,
    prompts: Sequence[Prompt],
    laws: LawCard,
    executor: Executor,
    store: RunStore,
    watchers: Watchers,
) -> AuditState:
    """Rounds until there is nothing more to plan; writes the log only."""
    claim_laws(store, laws)
    state = rebuild(config, prompts, laws, store.replay())
    _remember(state, executor, store)
    state.judge = known_error(config, store.folder)
    _judge_what_was_not(state, executor, store)
    _ask_strong_judge(state, executor, store, watchers, failed=True)
    if state.round >= 0 and not state.pending:
        watchers.tell("round_finished", state, estimate_all(state))
    while True:
        if not state.pending:
            plan = plan_round(state)
            if plan is None:
                return state
            store.append_plan(plan)
            state.add_plan(plan)
        _run_round(state, executor, store, watchers)
        _ask_strong_judge(state, executor, store, watchers)
        watchers.tell("round_finished", state, estimate_all(state))


def _remember(state: AuditState, executor: Executor, store: RunStore) -> None:
    """Verdicts that earlier runs have logged need not be asked for again."""
    cache = executor.cache if isinstance(executor, Remembers) else None
    if cache is not None and state.round >= 0:
        for prompt_id, texts, judged in judged_answers(store.folder):
            cache.learn(state.ledgers[prompt_id].prompt.text, texts, judged)


def _judge_what_was_not(state: AuditState, executor: Executor, store: RunStore) -> None:
    """Verdicts for the answers an earlier run could not get judged, before anything else is drawn."""
    if not state.unjudged:
        return
    watch = JudgeWatch()
    for result, judged in judge_again(state, final_results(store.folder), executor):
        store.append_verdicts(result.batch.key, judged)
        state.add_verdicts(result.batch.key, judged.verdicts, judged.errors, judged.calls)
        watch.see(replace(result, judge_errors=judged.errors))
        if watch.gone:
            break
    watch.round_done()


def _ask_strong_judge(
    state: AuditState, executor: Executor, store: RunStore, watchers: Watchers, *, failed: bool = False
) -> None:
    """Its verdicts on a sample of the last round; on what it failed on in an earlier run too, if ``failed``."""
    if (asked := plan_strong(state)) is not None:
        store.append_asked(asked)
        state.add_asked(asked)
    if portions := waiting(state, failed=failed):
        watchers.tell("strong_started", state.round, sum(len(p.rows) for p in portions))
        ask(state, executor, store, portions)


def _run_round(state: AuditState, executor: Executor, store: RunStore, watchers: Watchers) -> None:
    """Runs what the round still lacks; every outcome is logged before it counts."""
    assert state.plan is not None
    watchers.tell("round_started", state.plan)
    watch, estimator = JudgeWatch(), Estimator(state, executor)
    for outcome in executor.run(watch.feed(list(state.pending.values()))):
        if isinstance(outcome, BatchFailure):
            store.append_failure(outcome)
            logger.warning("batch %s failed: %s", outcome.batch.key, outcome.reason)
        else:
            claim_processor(state, executor, store, outcome.worker)
            store.append_result(outcome)
        if state.add_outcome(outcome):
            watchers.tell("batch_done", outcome)
            watch.see(outcome)
            estimator.arrived(outcome.batch.prompt_id)
    if state.pending and not watch.gone:
        raise ModelError(
            f"round {state.round}: {len(state.pending)} batches came back neither drawn nor failed, "
            f"the first is {next(iter(state.pending))}; run again to resume"
        )
    estimator.round_done()
    watch.round_done()


def _finish(state: AuditState, store: RunStore, watchers: Watchers, seconds: float) -> AuditOutcome:
    store.sync()
    estimates = estimate_all(state)
    spent = {
        **totals(state, estimates),
        "duplicates": store.duplicates,
        "mismatches": store.mismatches,
        "seconds": seconds,
    }
    search = search_record(state)
    write_results(store.folder, state, estimates, spent, search)
    if estimates and all(e.status == Status.FAILED for e in estimates):
        raise ModelError(f"all {len(estimates)} prompts failed; the first: {estimates[0].reasons[0]}")
    outcome = AuditOutcome(
        exit_code=0 if all(e.status == Status.OK for e in estimates) else 3,
        totals=spent,
        estimates=tuple(estimates),
        folder=store.folder,
        search=search,
    )
    watchers.tell("finished", outcome)
    return outcome


class Watchers:
    """The observers; one that raises is logged once and not called again."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = list(observers)

    def tell(self, event: str, *args: Any) -> None:
        for observer in list(self._observers):
            try:
                getattr(observer, event)(*args)
            except Exception:
                logger.exception(
                    "%s failed in %s and is left out from now on", type(observer).__name__, event
                )
                self._observers.remove(observer)
