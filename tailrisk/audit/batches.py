"""From counts to a round of batches with seeds, the same for every method; and what the budget still holds."""

from __future__ import annotations

from collections.abc import Sequence

from tailrisk.audit.counts import batch_sizes
from tailrisk.audit.state import AuditState, PromptLedger
from tailrisk.records import Batch, PromptPlan, RoundPlan
from tailrisk.seeds import derive_seed


def round_of(state: AuditState, prompts: Sequence[PromptPlan]) -> RoundPlan:
    """The next round: every prompt's counts cut into batches, each with a seed of its own."""
    number = state.round + 1
    batches = [b for plan in prompts for b in _batches(state, state.ledgers[plan.prompt_id], plan, number)]
    return RoundPlan(round=number, prompts=tuple(prompts), batches=tuple(batches))


def affordable(state: AuditState) -> int:
    """Draws that can be planned now whatever their length turns out to be."""
    tokens = state.tokens_left
    by_tokens = state.draws_left if tokens is None else tokens // state.max_new_tokens
    return max(0, min(state.draws_left, by_tokens))


def _batches(state: AuditState, ledger: PromptLedger, plan: PromptPlan, number: int) -> list[Batch]:
    return [
        Batch(
            prompt_id=plan.prompt_id,
            component=k,
            index=index,
            round=number,
            size=size,
            seed=_seed(state, plan.prompt_id, k, index),
            components=plan.components,
        )
        for k, count in enumerate(plan.counts)
        for index, size in enumerate(
            batch_sizes(count, state.config.budget.batch), start=ledger.next_index[k]
        )
    ]


def _seed(state: AuditState, prompt_id: str, component: int, index: int) -> int:
    fingerprints = state.laws.fingerprints
    own = fingerprints[component]
    # Two components may be the same law (an adapter scaled by one is the target): their draws must differ.
    twin = fingerprints[:component].count(own)
    parts = (state.config.run.seed, prompt_id, own, index)
    return derive_seed(*parts, twin) if twin else derive_seed(*parts)
