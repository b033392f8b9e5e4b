"""``run.log``: what happened in a run, one line each, ``time level event key=value ...``; errors in full."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tailrisk.audit.protocols import Silent
from tailrisk.cli import guard
from tailrisk.events import event
from tailrisk.records import BatchFailure, BatchResult, RoundPlan

if TYPE_CHECKING:
    from rich.console import Console

    from tailrisk.audit.outcome import AuditOutcome
    from tailrisk.audit.state import AuditState
    from tailrisk.stats import Estimate

log = logging.getLogger("tailrisk")


@contextmanager
def run_log(folder: Path) -> Iterator[Path]:
    """Append the package's log records to ``folder/run.log`` while the block runs."""
    path = folder / "run.log"
    handler = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
    formatter = logging.Formatter("%(asctime)sZ %(levelname)s %(name)s %(message)s", "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    guard.state.run_log = path
    try:
        yield path
    except BaseException as error:
        # The guard sees the error only after this file is closed.
        if not isinstance(error, KeyboardInterrupt):
            log.error("event=stopped error=%s", type(error).__name__, exc_info=True)
        else:
            log.warning("event=interrupted")
        raise
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
        handler.close()


class _Printer(logging.Handler):
    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        self._console.print(record.getMessage(), markup=False, soft_wrap=True)


@contextmanager
def waiting_told(console: Console) -> Iterator[None]:
    """A person is told, too, which nodes the workers wait for."""
    logger, printer = logging.getLogger("tailrisk.cluster.patience"), _Printer(console)
    logger.addHandler(printer)
    try:
        yield
    finally:
        logger.removeHandler(printer)


class LogObserver(Silent):
    """Writes the rounds and the batches of an audit to the log; ids and numbers, no texts."""

    def round_started(self, plan: RoundPlan) -> None:
        draws = sum(batch.size for batch in plan.batches)
        final = sum(prompt.final for prompt in plan.prompts)
        event("round_started", round=plan.round, prompts=len(plan.prompts), draws=draws, closing=final)

    def batch_done(self, outcome: BatchResult | BatchFailure) -> None:
        if isinstance(outcome, BatchFailure):
            event("batch_failed", key=outcome.batch.key, round=outcome.batch.round, reason=outcome.reason)
            return
        batch, errors, calls = outcome.batch, sum(map(bool, outcome.judge_errors)), outcome.judge_calls
        event(
            "batch_done",
            key=batch.key,
            round=batch.round,
            component=batch.component,
            draws=outcome.n,
            worker=outcome.worker,
            seconds=round(outcome.seconds, 3),
            **({"judge_errors": errors} if errors else {}),
            **({} if calls is None else {"judge_calls": calls}),
        )

    def round_finished(self, state: AuditState, estimates: Sequence[Estimate]) -> None:
        statuses = [str(estimate.status) for estimate in estimates]
        event(
            "round_finished",
            draws=sum(estimate.draws for estimate in estimates),
            hits=sum(estimate.hits for estimate in estimates),
            **{status.replace("-", "_"): statuses.count(status) for status in sorted(set(statuses))},
        )

    def finished(self, outcome: AuditOutcome) -> None:
        event("finished", exit_code=outcome.exit_code, folder=str(outcome.folder))
