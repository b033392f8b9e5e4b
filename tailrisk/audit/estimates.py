"""From the state to one estimate a prompt, in the order of the prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tailrisk.audit.state import AuditState, PromptLedger
from tailrisk.stats import Estimate, RoundDraws, estimate_prompt


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
    """The prompt's estimate from these rounds."""
    estimate = estimate_prompt(
        ledger.prompt.id,
        rounds,
        [state.laws.names[k] for k in ledger.components],
        confidence=state.config.stop.confidence,
        log_width=state.config.stop.log_width,
        corrected=state.laws.corrected,
        budget_left=ledger.open,
        failed_reason=ledger.failed,
        category=ledger.prompt.category,
    )
    return replace(estimate, group=ledger.prompt.group)
