"""The target with a direction, such as that of refusal, taken out of its residual stream."""

from __future__ import annotations

from tailrisk.config import AblationProposal
from tailrisk.models.directions import load_direction
from tailrisk.models.interventions.ablation import Ablation
from tailrisk.models.laws import Law
from tailrisk.proposals.context import Context


def ablation_law(proposal: AblationProposal, context: Context) -> Law:
    """The target, its adapter still on, under an ablation of the given intensity. Errors: ModelError."""
    direction = load_direction(context.config.resolve(proposal.direction))
    ablation = Ablation(direction.vector, proposal.intensity)
    return Law(
        name=proposal.name,
        view=context.view._replace(name=proposal.name, interventions=(*context.view.interventions, ablation)),
        digest=context.target.digest,
        mix=proposal.mix,
        switch=proposal.switch,
    )
