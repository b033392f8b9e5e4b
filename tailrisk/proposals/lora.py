"""The target with another adapter, or with its own one weaker, stronger, reversed or off."""

from __future__ import annotations

from tailrisk.config import LoraProposal
from tailrisk.errors import ConfigError
from tailrisk.models.interventions.lora import Lora
from tailrisk.models.laws import Law
from tailrisk.proposals.context import Context


def lora_law(proposal: LoraProposal, context: Context) -> Law:
    """``adapter`` times ``scale`` in the place of the target's own adapter, under the target's system prompt.

    Errors: ConfigError where the target has no adapter to scale or the folder is unusable, ModelError.
    """
    if proposal.adapter != "target":
        adapter = context.load_adapter(proposal.adapter)
    elif context.adapter is not None:
        adapter = context.adapter
    else:
        raise ConfigError(
            f"proposals: {proposal.name!r} scales the target's own adapter, but target.adapter is not set; "
            "set it, or name a PEFT folder"
        )
    lora = Lora(adapter, proposal.scale, context.merges)
    return Law(
        name=proposal.name,
        view=context.view._replace(name=proposal.name, interventions=(lora,)),
        digest=context.target.digest,
        mix=proposal.mix,
        switch=proposal.switch,
    )
