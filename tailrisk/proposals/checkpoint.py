"""Another model with the same tokenizer, such as the base model or a helpful-only sibling."""

from __future__ import annotations

from tailrisk.config import CheckpointProposal
from tailrisk.errors import ConfigError
from tailrisk.models.engine import View, body_of
from tailrisk.models.laws import Law
from tailrisk.models.loading import load_model, model_digest, resolve_model
from tailrisk.proposals.context import Context


def checkpoint_law(proposal: CheckpointProposal, context: Context) -> Law:
    """The other model without the target's adapter, told what the target is told, in the target's dtype.

    Errors: ConfigError for a vocabulary of another size, ModelError.
    """
    target = context.config.target
    ref = resolve_model(proposal.model, context.config.base)
    model = load_model(ref, target.dtype, target.device)
    sizes = body_of(model).vocabulary, body_of(context.view.model).vocabulary
    if sizes[0] != sizes[1]:
        raise ConfigError(
            f"proposals: {proposal.name!r}: {proposal.model!r} has {sizes[0]} tokens, the target {sizes[1]}; "
            "a checkpoint must have the target's tokenizer"
        )
    return Law(
        name=proposal.name,
        view=View(model, (), context.view.system_prompt, proposal.name),
        digest=model_digest(ref),
        mix=proposal.mix,
        switch=proposal.switch,
    )
