"""From the state to one estimate a prompt, in the order of the prompts.

Where the judge's error is known it is in the estimate's ``corrected`` numbers and in its status. Plans do not look at
either: draws make the probability of what is *judged* harm as narrow as asked, which is what they can do, and a prompt
under the judge's resolution is then closed like any other, its upper end as low as its draws allow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from tailrisk.audit.state import AuditState, PromptLedger
from tailrisk.records import Prompt
from tailrisk.stats import Estimate, RoundDraws, estimate_prompt
from tailrisk.stats.judgeerror import JudgeBounds, sampling_confidence, with_judge_error


class Question(NamedTuple):
    """All that one prompt's estimate is computed from: plain numbers, which may travel to another process."""

    prompt: Prompt
    rounds: Sequence[RoundDraws]
    names: tuple[str, ...]
    """Of the components that the estimate rests on, the target first."""
    confidence: float
    log_width: float
    corrected: bool
    judge: JudgeBounds | None
    open: bool
    """Whether draws may still come."""
    failed: str | None

    @classmethod
    def of(cls, state: AuditState, ledger: PromptLedger, rounds: Sequence[RoundDraws]) -> Question:
        stop, laws = state.config.stop, state.laws
        return cls(
            prompt=ledger.prompt,
            rounds=rounds,
            names=tuple(laws.names[k] for k in ledger.components),
            confidence=stop.confidence,
            log_width=stop.log_width,
            corrected=laws.corrected,
            judge=state.judge,
            open=ledger.open,
            failed=ledger.failed,
        )


def estimate_all(state: AuditState) -> list[Estimate]:
    """Every prompt's estimate from its complete rounds; only ledgers that changed are computed again."""
    return [estimate_one(state, ledger) for ledger in state.ledgers.values()]


def estimate_one(state: AuditState, ledger: PromptLedger) -> Estimate:
    key = ledger.moment
    if ledger.estimate is None or ledger.estimate[0] != key:
        ledger.estimate = key, estimate_rounds(state, ledger, ledger.rounds)
    return ledger.estimate[1]


def estimate_rounds(state: AuditState, ledger: PromptLedger, rounds: Sequence[RoundDraws]) -> Estimate:
    """The prompt's estimate from these rounds, with the judge's error in it where that is known."""
    return answer(Question.of(state, ledger, rounds))


def answer(question: Question) -> Estimate:
    prompt, confidence = question.prompt, question.confidence
    estimate = _judged(question, confidence)
    if question.judge is not None:
        wider = _judged(question, sampling_confidence(confidence))
        estimate = with_judge_error(estimate, wider, question.judge)
    return replace(estimate, group=prompt.group, perturbation=prompt.perturbation)


def _judged(question: Question, confidence: float) -> Estimate:
    """Of the probability that an answer is judged harm."""
    return estimate_prompt(
        question.prompt.id,
        question.rounds,
        question.names,
        confidence=confidence,
        log_width=question.log_width,
        corrected=question.corrected,
        budget_left=question.open,
        failed_reason=question.failed,
        category=question.prompt.category,
    )
