"""Scouts: prompts whose pilot comes first, so that the pilots of all others begin with what they found.

A pilot of equal shares gives most of its draws to components that find little; the more components, the more. What
finds the harm of one prompt mostly finds that of the next, so with several proposals a quarter of the prompts, and
one of each group, is enough to learn it from. The others keep a part of their pilot for looking elsewhere.
Their shares follow from earlier rounds alone, so nothing is biased.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tailrisk.audit.outlook import next_shares
from tailrisk.audit.state import AuditState, PromptLedger
from tailrisk.records import FloatArray
from tailrisk.stats.shares import initial_shares

FEWEST_PROPOSALS = 3
FEWEST_PROMPTS = 8
EVERY = 4
"""One prompt in so many is a scout."""
EXPLORED = 0.2
"""The part of its equal share that every component keeps in another prompt's pilot, whatever the scouts found."""


class Start(NamedTuple):
    """``components`` that a prompt's estimate will rest on (None: all) and ``shares`` [K] of the pilot, 0 for
    the others."""

    components: tuple[int, ...] | None
    shares: FloatArray


def choose_scouts(state: AuditState) -> tuple[str, ...]:
    """Prompt ids, in their order: every fourth of the prompts without a group and the first of every group. None
    where shares are not learned from all prompts together, or where it would not be worth a round.
    """
    config = state.config
    if config.method.kind != "mixture" or config.budget.shares != "learned":
        return ()
    if len(state.laws.names) - 1 < FEWEST_PROPOSALS or len(state.ledgers) < FEWEST_PROMPTS:
        return ()
    scouts, groups, alone = [], set[str](), 0
    for prompt_id, ledger in state.ledgers.items():
        group = ledger.prompt.group
        if group is None:
            chosen = alone % EVERY == 0
            alone += 1
        else:
            chosen = group not in groups
            groups.add(group)
        if chosen:
            scouts.append(prompt_id)
    return tuple(scouts) if 2 * len(scouts) <= len(state.ledgers) else ()


def learned_starts(state: AuditState, waiting: Sequence[PromptLedger]) -> dict[str, Start]:
    """Starts of the prompts that have drawn nothing yet, from the rounds of those that have."""
    even = initial_shares(len(state.laws.names), state.config.budget.target_share)
    begun = [ledger for ledger in state.open_ledgers if ledger.rounds]
    if not any(ledger.rounds for ledger in state.ledgers.values() if ledger.failed is None):
        return {ledger.prompt.id: Start(None, even) for ledger in waiting}
    shares = next_shares(state, [*waiting, *begun])[: len(waiting)]
    return {
        ledger.prompt.id: Start(None, _exploring(row, even))
        for ledger, row in zip(waiting, shares, strict=True)
    }


def _exploring(shares: FloatArray, even: FloatArray) -> FloatArray:
    """[K] ``shares`` in which every proposal has a part of its equal share; the target's stays."""
    proposals = np.maximum(shares[1:], EXPLORED * even[1:])
    return np.concatenate([shares[:1], proposals * (1.0 - shares[0]) / proposals.sum()])
