"""Proposals: from configuration to laws, one file a kind.

A kind is a function ``(its configuration, Context) -> Law``; adding one means a class in
``tailrisk.proposalconfig``, a file here and a line in ``KINDS``, or in ``CHANGES`` where it is a change of the
target that goes together with others. ``tests/proposals`` runs every kind through the same checks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tailrisk.config import Config, TargetConfig
from tailrisk.models.engine import View
from tailrisk.models.interventions.adapter import load_adapter
from tailrisk.models.interventions.lora import Lora, MergeCache
from tailrisk.models.laws import Law, LawSet
from tailrisk.models.loading import (
    ModelRef,
    load_generation_config,
    load_model,
    load_tokenizer,
    model_digest,
    resolve_model,
)
from tailrisk.models.sampling import Limits
from tailrisk.models.tokens import stop_ids
from tailrisk.models.warp import Warp
from tailrisk.proposals.changes import CHANGES, changed_law
from tailrisk.proposals.checkpoint import checkpoint_beside, checkpoint_law
from tailrisk.proposals.context import Context
from tailrisk.proposals.grid import grid_laws, search_laws
from tailrisk.proposals.learned import learned_law
from tailrisk.proposals.prefix import prefix_law

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

KINDS: dict[str, Callable[[Any, Context], Law]] = {
    **dict.fromkeys(CHANGES, changed_law),
    "prefix": prefix_law,
    "checkpoint": checkpoint_beside,
    "learned": learned_law,
}


def build_laws(config: Config) -> LawSet:
    """Loads the target, its adapter and everything that the proposals need.

    Relative paths are relative to ``config.base``. Errors: ConfigError, ModelError.
    """
    context = load_target(config)
    if config.method.kind == "paper":
        proposals = grid_laws(KINDS[config.proposals[0].kind], context)
    elif config.method.kind == "search":
        proposals = search_laws(KINDS, context)
    else:
        proposals = [KINDS[p.kind](p, context) for p in config.proposals]
    return LawSet([context.target, *proposals], context.tokenizer, context.limits)


def build_checkpoints(config: Config) -> LawSet:
    """The proposals of ``config.apart`` without the target, with the numbers that they have beside it.

    Errors: ConfigError, ModelError.
    """
    _, tokenizer, limits = _reading(config)
    laws = [checkpoint_law(proposal, config) for proposal in config.apart]
    return LawSet(laws, tokenizer, limits, with_target=False)


def load_target(config: Config) -> Context:
    """The target with its adapter and its tokenizer, and nothing of the proposals.

    Errors: ConfigError, ModelError.
    """
    target = config.target
    ref, tokenizer, limits = _reading(config)
    model = load_model(ref, target.dtype, target.device)
    merges = MergeCache()
    adapter = None if target.adapter is None else load_adapter(config.resolve(target.adapter), model.config)
    interventions = () if adapter is None else (Lora(adapter, 1.0, merges),)
    law = Law(name="target", view=View(model, interventions, target.system_prompt), digest=model_digest(ref))
    return Context(
        config=config, target=law, adapter=adapter, tokenizer=tokenizer, limits=limits, merges=merges
    )


def _reading(config: Config) -> tuple[ModelRef, PreTrainedTokenizerBase, Limits]:
    """What all laws share besides the target's model."""
    target = config.target
    ref = resolve_model(target.model, config.base)
    tokenizer = load_tokenizer(ref)
    stops = stop_ids(tokenizer, load_generation_config(ref), target.sampling.stop_token_ids)
    return ref, tokenizer, sampling_limits(target, stops)


def sampling_limits(target: TargetConfig, stops: tuple[int, ...]) -> Limits:
    """The deployment's sampling settings as the engine takes them."""
    settings = target.sampling
    return Limits(settings.max_new_tokens, stops, Warp(settings.temperature, settings.top_p, settings.top_k))
