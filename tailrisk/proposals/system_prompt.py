"""The target told something else: the same weights after another system prompt."""

from __future__ import annotations

from tailrisk.config import SystemPromptProposal
from tailrisk.models.laws import Law
from tailrisk.proposals.context import Context


def system_prompt_law(proposal: SystemPromptProposal, context: Context) -> Law:
    """The target's weights, adapter included, with ``text`` in the place of its system prompt."""
    return Law(
        name=proposal.name,
        view=context.view._replace(name=proposal.name, system_prompt=proposal.text),
        digest=context.target.digest,
        mix=proposal.mix,
        switch=proposal.switch,
    )
