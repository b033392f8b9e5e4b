"""An audit that fits proposals first: each ``learned`` one becomes a ``lora`` whose adapter lies beside the run folder.

What the fits draw is taken off the budget and enters no estimate: its seeds are others, so given the adapters the
audit's own draws are what they would be had the adapters come from elsewhere, and its estimates are unbiased.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from tailrisk.cli.wiring import Workers
    from tailrisk.config import Config
    from tailrisk.proposalconfig import LearnedProposal, ProposalConfig
    from tailrisk.records import Prompt


def learned_first(
    config: Config, prompts: Sequence[Prompt], console: Console, *, live: bool, workers: Workers
) -> Config:
    """The configuration with every learned proposal fitted, and their draws off the budget.

    Errors: as ``learn``, and ConfigError where what is left of the budget does not hold the audit.
    """
    from tailrisk.configfile import check_budget

    if not config.learned:
        return config
    spent = sum(config.fit_draws(p) * p.rounds for p in config.learned)
    budget = config.budget.model_copy(update={"draws": config.budget.draws - spent})
    check_budget(config.model_copy(update={"budget": budget}), len(prompts))
    made = {p.name: _fitted(config, p, console, live, workers) for p in config.learned}
    proposals = tuple(made.get(p.name, p) for p in config.proposals)
    console.print(
        f"{spent:,} of {config.budget.draws:,} draws went into fits; {budget.draws:,} are left for estimates",
        style="dim",
        markup=False,
    )
    return config.model_copy(update={"proposals": proposals, "budget": budget})


def _fitted(
    config: Config, proposal: LearnedProposal, console: Console, live: bool, workers: Workers
) -> ProposalConfig:
    from tailrisk.cli.lorarounds import learn
    from tailrisk.errors import ConfigError
    from tailrisk.proposalconfig import PrefixProposal
    from tailrisk.training.lorajob import base_of, beside, learned_proposal

    settings = {"base": proposal.base, "rounds": proposal.rounds, "draws": config.fit_draws(proposal)}
    own = config.model_copy(update={"training": config.training.model_copy(update=settings)})
    if isinstance(base_of(own), PrefixProposal) and (proposal.mix < 1.0 or proposal.switch is not None):
        raise ConfigError(
            f"proposals: {proposal.name!r}: on top of the prefix {proposal.base!r} neither 'mix' nor 'switch' applies"
        )
    out = config.fit_folder(proposal.name)
    console.print(f"fitting {proposal.name!r} in {out}", style="dim", markup=False)
    last = learn(own, out, console, live=live, workers=workers)[-1]
    made = learned_proposal(own, proposal.name, beside(config, last.adapter))
    return made.model_copy(update={"mix": proposal.mix, "switch": proposal.switch})
