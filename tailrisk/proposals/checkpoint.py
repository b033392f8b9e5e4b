"""Another model with the same tokenizer, such as the base model or a helpful-only sibling."""

from __future__ import annotations

from tailrisk.config import CheckpointProposal, Config
from tailrisk.errors import ConfigError
from tailrisk.models.engine import View, body_of
from tailrisk.models.laws import Law
from tailrisk.models.loading import load_model, model_digest, resolve_model
from tailrisk.proposals.context import Context


def checkpoint_beside(proposal: CheckpointProposal, context: Context) -> Law:
    """The law of another model, held against the target that is loaded too.

    Errors: ConfigError for a vocabulary of another size, ModelError.
    """
    law = checkpoint_law(proposal, context.config)
    sizes = body_of(law.view.model).vocabulary, body_of(context.view.model).vocabulary
    if sizes[0] != sizes[1]:
        raise ConfigError(
            f"proposals: {proposal.name!r}: {proposal.model!r} has {sizes[0]} tokens, the target {sizes[1]}; "
            "a checkpoint must have the target's tokenizer"
        )
    return law


def checkpoint_law(proposal: CheckpointProposal, config: Config) -> Law:
    """The other model without the target's adapter, told what the target is told, in the target's dtype.

    Errors: ConfigError, ModelError.
    """
    target = config.target
    ref = resolve_model(proposal.model, config.base)
    model = load_model(ref, target.dtype, target.device)
    return Law(
        name=proposal.name,
        view=View(model, (), target.system_prompt, proposal.name),
        digest=model_digest(ref),
        mix=proposal.mix,
        switch=proposal.switch,
    )
