"""All that can be wrong with the models of an audit, found before any weights are loaded.

``check`` goes on after a problem and reports all of them in one error, because the next one would otherwise
show only after the next start. It also gives the content digests that make up the manifest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from tailrisk.config import Config
from tailrisk.errors import ConfigError, InputError, ModelError
from tailrisk.models import tokens
from tailrisk.models.checks import (
    Parts,
    Problems,
    check_adapter,
    check_proposals,
    check_system_prompt,
    max_positions,
    read_parts,
    vocab_size,
)
from tailrisk.models.digests import ids_digest, text_digest
from tailrisk.models.loading import check_device, load_generation_config, model_digest, resolve_model
from tailrisk.models.sharding import check_parallel
from tailrisk.proposalconfig import SystemPromptChange
from tailrisk.records import Prompt

if TYPE_CHECKING:
    from transformers import PretrainedConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Preflight:
    """Digests (sha256, hexadecimal) by component or prompt, and the facts that planning needs.

    ``models``: the target and the checkpoints; ``adapters`` and ``directions`` (steering vectors too): by
    component, a further change of a law as ``name.also.0``; ``prompts``: by prompt id, over the rendered ids
    under every context; ``prompt_lengths``: tokens of the longest context.
    """

    models: dict[str, str]
    adapters: dict[str, str]
    directions: dict[str, str]
    template: str
    prompts: dict[str, str]
    prompt_lengths: dict[str, int]
    stop_ids: tuple[int, ...]
    vocab_size: int
    max_positions: int | None

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values, for the manifest."""
        return {**asdict(self), "stop_ids": list(self.stop_ids)}


def check(config: Config, prompts: Sequence[Prompt]) -> Preflight:
    """Checks target, proposals and prompts against each other; see the module.

    Errors: ConfigError, InputError or ModelError, the first that applies to any problem, naming all of them.
    """
    found = Problems()
    target: Parts | None = None
    with found.collected("target"):
        target = read_parts(config, config.target.model)
    if target is None:
        check_proposals(config, None, (), found)
        raise found.error()
    stops = _check_sampling(config, target, found)
    adapters, directions, models = {}, {}, {}
    with found.collected("target"):
        models["target"] = model_digest(resolve_model(config.target.model, config.base))
    if config.target.adapter is not None:
        with found.collected("target"):
            adapters["target"] = check_adapter(config, config.target.adapter, target)
    checks = check_proposals(config, target, stops, found)
    adapters |= checks.adapters
    directions |= checks.directions
    models |= checks.models
    _check_shards(config, target, checks.configs, found)
    template, rendered = "", {}
    with found.collected("target"):
        template = tokens.template_digest(target.tokenizer)
        rendered = _check_prompts(config, prompts, target, checks.configs, found)
    if found.items:
        raise found.error()
    return Preflight(
        models=models,
        adapters=adapters,
        directions=directions,
        template=template,
        prompts={k: text_digest(*(ids_digest(ids) for ids in v)) for k, v in rendered.items()},
        prompt_lengths={k: max(map(len, v)) for k, v in rendered.items()},
        stop_ids=stops,
        vocab_size=vocab_size(target.config),
        max_positions=max_positions(target.config),
    )


def _check_sampling(config: Config, target: Parts, found: Problems) -> tuple[int, ...]:
    with found.collected("target.device"):
        check_device(config.target.device)
    stops: tuple[int, ...] = ()
    with found.collected("target"):
        generation = load_generation_config(resolve_model(config.target.model, config.base))
        stops = tokens.stop_ids(target.tokenizer, generation, config.target.sampling.stop_token_ids)
    size = vocab_size(target.config)
    if wrong := [i for i in stops if not 0 <= i < size]:
        found.add(
            ConfigError, f"target.sampling.stop_token_ids: {wrong} not in the vocabulary (0 to {size - 1})"
        )
    if (config.target.system_prompt or "").strip():
        check_system_prompt(target, "target.system_prompt", found)
    return stops


def _check_shards(
    config: Config, target: Parts, checkpoints: dict[str, PretrainedConfig], found: Problems
) -> None:
    """Whether the models can be cut as their workers are to hold them."""
    apart = {proposal.name for proposal in config.apart}
    pools = config.cluster.pools
    with found.collected("target"):
        check_parallel(pools["models"].parallel, target.config, "cluster.models")
    for name, architecture in checkpoints.items():
        section = "checkpoints" if name in apart else "models"
        with found.collected(f"proposal {name!r}"):
            check_parallel(pools[section].parallel, architecture, f"cluster.{section}")


def _check_prompts(
    config: Config,
    prompts: Sequence[Prompt],
    target: Parts,
    others: dict[str, PretrainedConfig],
    found: Problems,
) -> dict[str, list[tuple[int, ...]]]:
    """Rendered ids by prompt: under the target's context, then under each system prompt in order."""
    contexts: list[tuple[str, str | None]] = [("target", config.target.system_prompt)]
    contexts += [
        (p.name, c.text) for p in config.proposals for c in p.changes if isinstance(c, SystemPromptChange)
    ]
    limits = [("the target", max_positions(target.config))]
    limits += [(f"checkpoint {name!r}", max_positions(c)) for name, c in others.items()]
    size, new = vocab_size(target.config), config.target.sampling.max_new_tokens
    rendered: dict[str, list[tuple[int, ...]]] = {}
    for prompt in prompts:
        where = f"prompt {prompt.id!r}"
        with found.collected(where):
            rendered[prompt.id] = [
                tokens.render_prompt(target.tokenizer, prompt, text) for _, text in contexts
            ]
        for (context, _), ids in zip(contexts, rendered.get(prompt.id, ()), strict=False):
            place = where if context == "target" else f"{where} under proposal {context!r}"
            if max(ids) >= size:
                found.add(
                    ModelError, f"{place}: token id {max(ids)} is outside the model's vocabulary ({size})"
                )
            for name, limit in limits if context == "target" else limits[:1]:
                if limit is not None and len(ids) + new > limit:
                    found.add(
                        InputError,
                        f"{place}: {len(ids)} tokens and {new} new ones do not fit into the {limit} "
                        f"positions of {name}; shorten the prompt or target.sampling.max_new_tokens",
                    )
    return rendered
