"""One fit from the configuration to an adapter's folder; each process of a shared fit runs the same."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tailrisk import __version__
from tailrisk.config import Config
from tailrisk.errors import ConfigError
from tailrisk.models.engine import View
from tailrisk.models.loading import load_tokenizer, resolve_model
from tailrisk.models.tokens import render_prompt
from tailrisk.proposalconfig import (
    CombinedProposal,
    LoraChange,
    LoraProposal,
    PrefixProposal,
    ProposalConfig,
    SystemPromptChange,
)
from tailrisk.proposals import load_target
from tailrisk.proposals.changes import changed_view
from tailrisk.proposals.prefix import openings
from tailrisk.records import Prompt
from tailrisk.training.backends import open_backend
from tailrisk.training.loradata import Beginning, FitData, Ids
from tailrisk.training.lorafit import Epoch, Fit, Fitted
from tailrisk.training.loramodel import save_adapter, trainable
from tailrisk.trainingconfig import LoraTraining

if TYPE_CHECKING:
    from tailrisk.training.directions import Watcher

CARD_FORMAT = 1


class FitJob(NamedTuple):
    """``adapter``: the folder to write; ``kept``: the folder of what is needed to go on. ``digests`` of the model
    and the target's adapter ('' where there is none) go to the card."""

    config: Config
    data: FitData
    seed: int
    adapter: Path
    kept: Path
    digests: tuple[str, str]

    @property
    def identity(self) -> dict[str, Any]:
        """All that the adapter depends on, as plain JSON."""
        base = base_of(self.config)
        return {
            "model": self.digests[0],
            "target_adapter": self.digests[1],
            "base": "target" if base is None else base.model_dump(mode="json"),
            "temperature": self.config.target.sampling.temperature,
            "training": self.config.training.of_a_fit,
            "data": self.data.digest,
            "seed": self.seed,
        }


def base_of(config: Config) -> CombinedProposal | None:
    """The proposal that the adapter is added to; None for the target itself.

    Errors: ConfigError for a name that is no proposal, or is one that no adapter can be added to.
    """
    name = config.training.base
    if name == "target":
        return None
    for proposal in config.proposals:
        if proposal.name == name:
            if isinstance(proposal, CombinedProposal):
                return proposal
            raise ConfigError(
                f"training.base: {name!r} is a {proposal.kind}, and an adapter is added to the target, to a change of "
                "it, or to a prefix; name a system_prompt, lora, ablation, vector or prefix, or leave base out"
            )
    known = ", ".join(["target", *(p.name for p in config.proposals if isinstance(p, CombinedProposal))])
    raise ConfigError(f"training.base: there is no proposal {name!r}; known: {known}")


def learned_proposal(config: Config, name: str, adapter: str) -> ProposalConfig:
    """The law that a fit has made: its base with the adapter added, from the first token to the last."""
    base = base_of(config)
    if base is None:
        return LoraProposal(name=name, kind="lora", adapter=adapter, added=True)
    change = LoraChange(kind="lora", adapter=adapter, added=True)
    update = {"name": name, "mix": 1.0, "switch": None, "also": (*base.also, change)}
    return base.model_copy(update=update)  # pyright: ignore[reportReturnType]


def beside(config: Config, adapter: Path) -> str:
    """An adapter's folder as the configuration names it: relative to its own."""
    return os.path.relpath(adapter.resolve(), config.base.resolve())


def settings_of(config: Config) -> LoraTraining:
    """The training's settings, the path in them absolute."""
    settings = config.training
    if settings.deepspeed is None:
        return settings
    return settings.model_copy(update={"deepspeed": str(config.resolve(settings.deepspeed))})


def reader(config: Config) -> Callable[[Prompt], Ids]:
    """What the base law reads before it answers a prompt."""
    tokenizer = load_tokenizer(resolve_model(config.target.model, config.base))
    base = base_of(config)
    told = [c.text for c in base.changes if isinstance(c, SystemPromptChange)] if base else []
    system = told[0] if told else config.target.system_prompt
    return lambda prompt: render_prompt(tokenizer, prompt, system)


def beginning_of(config: Config) -> Beginning:
    """What the base law makes answers begin with."""
    base = base_of(config)
    if not isinstance(base, PrefixProposal):
        return Beginning()
    tokenizer = load_tokenizer(resolve_model(config.target.model, config.base))
    return Beginning(*openings(base, tokenizer))


def run_fit(job: FitJob, watch: Watcher, after_epoch: Callable[[Epoch], None] = lambda epoch: None) -> Fitted:
    """Loads the model, fits, and has the first process write the adapter. Errors: ConfigError, ModelError."""
    settings, target = settings_of(job.config), job.config.target
    update = {} if settings.dtype is None else {"dtype": settings.dtype}
    config = job.config.model_copy(update={"target": target.model_copy(update=update)})
    view = base_view(config)
    with trainable(view, settings.shape, job.seed, recompute=settings.recompute) as model:
        backend = open_backend(model, settings)
        fitted = Fit(
            model,
            backend,
            job.data,
            settings,
            temperature=target.sampling.temperature,
            seed=job.seed,
            watch=watch,
            kept=job.kept,
            identity=job.identity,
            after_epoch=after_epoch,
        ).run()
        if backend.rank == 0:
            save_adapter(job.adapter, model, fitted.state, target.model, card(job, fitted))
    return fitted


def base_view(config: Config) -> View:
    """The law that the adapter is added to, its model loaded."""
    context = load_target(config)
    base = base_of(config)
    return context.view if base is None else changed_view(base, context)


def card(job: FitJob, fitted: Fitted) -> Mapping[str, Any]:
    """What an adapter was made from and how far it is from the law of harm."""
    config, data = job.config, job.data
    return {
        "format": CARD_FORMAT,
        "tailrisk": __version__,
        "identity": job.identity,
        "model": config.target.model,
        "target_adapter": config.target.adapter,
        "added": True,
        "sampling": config.target.sampling.model_dump(mode="json"),
        "data": {
            "examples": len(data.examples),
            "prompts": data.prompts,
            "gamma": data.gamma,
            "ess": data.ess,
            "held_out_examples": len(data.held_out.examples),
            "held_out_prompts": len(data.held_out.log_estimate),
            "outside": data.outside,
        },
        "divergence": {"before": fitted.before, "after": fitted.after, "epoch": fitted.best},
        "epochs": [epoch._asdict() for epoch in fitted.epochs],
    }
