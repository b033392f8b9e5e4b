"""A judge that fails: when to stop for it, and how its missing verdicts are made up for later.

A judge error is never taken for "safe". A few leave draws undetermined; when they are the rule the audit
stops, for it would spend its budget on answers that nobody reads. What was drawn stays in the log, and the
next run judges it before it draws anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from tailrisk.audit.protocols import Executor
from tailrisk.audit.state import AuditState
from tailrisk.errors import JudgeError
from tailrisk.records import JUDGE_GONE, Batch, BatchFailure, BatchResult, JudgedTexts

FIRST_BATCHES = 3
MOST_ERRORS = 0.5


class JudgeWatch:
    """Counts one round's judge errors. Raises JudgeError when none of the first three batches could be
    judged, or when more than half of the round's draws could not. ``gone``: why no answer can be judged for now, as
    the judge itself says, or ''; what is on its way then is still worth taking in, and nothing more worth drawing."""

    def __init__(self, who: str = "judge") -> None:
        self._who = who
        self.gone = ""
        self._batches = 0
        self._draws = 0
        self._errors = 0
        self._first = ""

    def see(self, outcome: BatchResult | BatchFailure) -> None:
        if isinstance(outcome, BatchFailure):
            return
        self.count(outcome.judge_errors)

    def count(self, judge_errors: Sequence[str]) -> None:
        """The errors of a batch, one a draw, '' where there was none."""
        errors = [e for e in judge_errors if e]
        self._batches += 1
        self._draws += len(judge_errors)
        self._errors += len(errors)
        self._first = self._first or (errors[0] if errors else "")
        self.gone = self.gone or next((e for e in errors if JUDGE_GONE in e), "")
        if self._batches == FIRST_BATCHES and self._errors == self._draws and not self.gone:
            self._stop()

    def feed(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """``batches`` for as long as there is a judge for them."""
        for batch in batches:
            if self.gone:
                return
            yield batch

    def round_done(self) -> None:
        if self.gone:
            raise JudgeError(
                f"{self.gone}. {self._errors} of {self._draws} answers of this round are not judged. Nothing drawn is "
                "lost: run the same command again when there is a judge, the stored answers are judged first"
            )
        if self._errors > MOST_ERRORS * self._draws:
            self._stop()

    def _stop(self) -> None:
        raise JudgeError(
            f"the {self._who} failed on {self._errors} of {self._draws} answers; the first error: {self._first}. "
            "Nothing drawn is lost: repair the judge and run the same command again, the stored answers are "
            "judged first"
        )


def judge_again(
    state: AuditState, results: Iterable[BatchResult], executor: Executor
) -> Iterator[tuple[BatchResult, JudgedTexts]]:
    """Every batch that had judge errors, with verdicts: new ones where it had, the others as they were.

    ``results`` are the logged batches with their last verdicts.
    """
    for result in results:
        if result.batch.key not in state.unjudged:
            continue
        again = [i for i, error in enumerate(result.judge_errors) if error]
        judged = executor.rejudge(result.batch.prompt_id, [result.texts[i] for i in again])
        calls = len(again) if judged.calls is None else judged.calls
        verdicts, scores, errors = result.verdicts.copy(), result.scores.copy(), list(result.judge_errors)
        verdicts[again] = judged.verdicts
        scores[again] = judged.scores
        for i, error in zip(again, judged.errors, strict=True):
            errors[i] = error
        yield result, JudgedTexts(verdicts, scores, errors, calls)
