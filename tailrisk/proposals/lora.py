"""Another adapter, or the target's own one weaker, stronger, reversed or off."""

from __future__ import annotations

from tailrisk.errors import ConfigError
from tailrisk.models.engine import View
from tailrisk.models.interventions.lora import Lora
from tailrisk.proposalconfig import LoraChange
from tailrisk.proposals.context import Context


def lora_view(change: LoraChange, view: View, context: Context) -> View:
    """``view`` with ``adapter`` times ``scale``, the target's own adapter out of it unless it is ``added``.

    Errors: ConfigError where the target has no adapter to scale or the folder is unusable, ModelError.
    """
    if change.adapter != "target":
        adapter = context.load_adapter(change.adapter)
    elif context.adapter is not None:
        adapter = context.adapter
    else:
        raise ConfigError(
            f"proposals: {view.name!r} scales the target's own adapter, but target.adapter is not set; "
            "set it, or name a PEFT folder"
        )
    own = () if change.added else context.view.interventions
    others = tuple(i for i in view.interventions if not any(i is o for o in own))
    return view._replace(interventions=(*others, Lora(adapter, change.scale, context.merges)))
