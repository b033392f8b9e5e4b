"""The target given how its answer opens: with certain words, or not with any of certain words.

Both need no unsafe model and no scoring of their own: q(y) = p(y) 1[y in S] / p(S), and p(S) comes from the
target's own pass. With changes under ``also`` it is the changed law that is given so, and it is scored. Aligned
models decide to refuse in their first tokens (Qi et al. 2024, "Safety alignment should be made more than just a few
tokens deep"), which is why these strata are worth their draws.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tailrisk.config import PrefixProposal
from tailrisk.errors import ConfigError
from tailrisk.models.avoid import prefix_free
from tailrisk.models.laws import Law
from tailrisk.models.tokens import opening_ids
from tailrisk.proposals.changes import changed_view
from tailrisk.proposals.context import Context

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def prefix_law(proposal: PrefixProposal, context: Context) -> Law:
    """``text`` and each of ``avoid`` are tokenised as they stand (a leading space matters).

    Errors: ConfigError for a mix or a switch (a stratum is all target after its opening), for texts without
    tokens, and for openings that hold a stop token or fill the whole response.
    """
    if proposal.mix != 1.0 or proposal.switch is not None:
        raise ConfigError(
            f"proposals: {proposal.name!r}: a prefix takes neither 'mix' nor 'switch'; it is the target "
            "itself from its opening on"
        )
    opening, avoided = openings(proposal, context.tokenizer)
    law = Law(
        name=proposal.name,
        view=changed_view(proposal, context),
        digest=context.target.digest,
        opening=opening,
        avoided=avoided,
    )
    stops = [i for i in law.opening if i in context.limits.stop_ids]
    if stops:
        raise ConfigError(f"proposals: {proposal.name!r}: the opening holds the stop token {stops[0]}")
    longest = max(map(len, (law.opening, *law.avoided)))
    if longest >= context.limits.max_new_tokens:
        raise ConfigError(
            f"proposals: {proposal.name!r}: an opening has {longest} tokens, max_new_tokens is "
            f"{context.limits.max_new_tokens}"
        )
    return law


def openings(
    proposal: PrefixProposal, tokenizer: PreTrainedTokenizerBase
) -> tuple[tuple[int, ...], tuple[tuple[int, ...], ...]]:
    """Tokens of the opening that is forced, and the prefix-free ones that are shut out; one of the two is empty.

    Errors: ConfigError for texts without tokens.
    """
    opening = opening_ids(tokenizer, proposal.text) if proposal.text is not None else ()
    return opening, prefix_free(opening_ids(tokenizer, text) for text in proposal.avoid or ())
