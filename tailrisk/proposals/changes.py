"""Laws that are the target with one or several changes: what it is told, its adapter, its activations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tailrisk.models.engine import View
from tailrisk.models.laws import Law
from tailrisk.proposalconfig import ChangeProposal, CombinedProposal
from tailrisk.proposals.ablation import ablation_view
from tailrisk.proposals.context import Context
from tailrisk.proposals.lora import lora_view
from tailrisk.proposals.system_prompt import system_prompt_view
from tailrisk.proposals.vector import vector_view

CHANGES: dict[str, Callable[[Any, View, Context], View]] = {
    "system_prompt": system_prompt_view,
    "lora": lora_view,
    "ablation": ablation_view,
    "vector": vector_view,
}


def changed_law(proposal: ChangeProposal, context: Context) -> Law:
    """The target, its adapter still on, under the proposal's own change and then those of ``also`` in order.

    Errors: ConfigError, ModelError, as the changes.
    """
    return Law(
        name=proposal.name,
        view=changed_view(proposal, context),
        digest=context.target.digest,
        mix=proposal.mix,
        switch=proposal.switch,
    )


def changed_view(proposal: CombinedProposal, context: Context) -> View:
    """The target's view under all changes of a proposal. Errors: ConfigError, ModelError, as the changes."""
    view = context.view._replace(name=proposal.name)
    for change in proposal.changes:
        view = CHANGES[change.kind](change, view, context)
    return view
