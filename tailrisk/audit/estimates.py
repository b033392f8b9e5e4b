"""From the state to one estimate a prompt, in the order of the prompts.

Where the judge's error is known it is in the estimate's ``corrected`` numbers and in its status. Plans do not look at
either: draws make the probability of what is *judged* harm as narrow as asked, which is what they can do, and a prompt
under the judge's resolution is then closed like any other, its upper end as low as its draws allow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tailrisk.audit.state import AuditState, PromptLedger
from tailrisk.stats import Estimate, RoundDraws, estimate_prompt
from tailrisk.stats.judgeerror import sampling_confidence, with_judge_error


def estimate_all(state: AuditState) -> list[Estimate]:
    """Every prompt's estimate from its complete rounds; only ledgers that changed are computed again."""
    return [estimate_one(state, ledger) for ledger in state.ledgers.values()]


def estimate_complete(state: AuditState, prompt_id: str) -> None:
    """Estimates a prompt whose last batch has just come, while the workers are busy with the others'."""
    ledger = state.ledgers[prompt_id]
    if ledger.entries[-1].settled:
        estimate_one(state, ledger)


def estimate_one(state: AuditState, ledger: PromptLedger) -> Estimate:
    key = (ledger.version, ledger.open)
    if ledger.estimate is None or ledger.estimate[0] != key:
        ledger.estimate = key, estimate_rounds(state, ledger, ledger.rounds)
    return ledger.estimate[1]


def estimate_rounds(state: AuditState, ledger: PromptLedger, rounds: Sequence[RoundDraws]) -> Estimate:
    """The prompt's estimate from these rounds, with the judge's error in it where that is known."""
    confidence = state.config.stop.confidence
    estimate = _judged(state, ledger, rounds, confidence)
    if state.judge is not None:
        wider = _judged(state, ledger, rounds, sampling_confidence(confidence))
        estimate = with_judge_error(estimate, wider, state.judge)
    return replace(estimate, group=ledger.prompt.group, perturbation=ledger.prompt.perturbation)


def _judged(
    state: AuditState, ledger: PromptLedger, rounds: Sequence[RoundDraws], confidence: float
) -> Estimate:
    """Of the probability that an answer is judged harm."""
    return estimate_prompt(
        ledger.prompt.id,
        rounds,
        [state.laws.names[k] for k in ledger.components],
        confidence=confidence,
        log_width=state.config.stop.log_width,
        corrected=state.laws.corrected,
        budget_left=ledger.open,
        failed_reason=ledger.failed,
        category=ledger.prompt.category,
    )
