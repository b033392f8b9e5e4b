"""A proposal that is still to be fitted: it has no law until the audit has made it a ``lora``."""

from __future__ import annotations

from typing import NoReturn

from tailrisk.errors import ConfigError
from tailrisk.proposalconfig import LearnedProposal
from tailrisk.proposals.context import Context


def learned_law(proposal: LearnedProposal, context: Context) -> NoReturn:
    """Errors: ConfigError, always."""
    raise ConfigError(
        f"proposals: {proposal.name!r} is not fitted yet; tailrisk audit does that, or tailrisk train lora, whose "
        "adapter a proposal of kind 'lora' names"
    )
