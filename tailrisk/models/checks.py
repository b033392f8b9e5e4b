"""The parts of ``preflight``: the target, and each kind of proposal against it; problems are collected."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from tailrisk.config import Config
from tailrisk.errors import ConfigError, InputError, ModelError, TailriskError
from tailrisk.models import tokens
from tailrisk.models.loading import load_config, load_tokenizer, model_digest, resolve_model
from tailrisk.proposalconfig import (
    AblationChange,
    Change,
    CheckpointProposal,
    LoraChange,
    PrefixProposal,
    SystemPromptChange,
    VectorChange,
)

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

_SHOWN = 20
_PROBE = "The quick  brown fox\n\tjumps: 12,345 zł — naïve café 東京 🙂 <b>'don't'</b>"


class Parts(NamedTuple):
    """A model without its weights."""

    config: PretrainedConfig
    tokenizer: PreTrainedTokenizerBase
    skeleton: PreTrainedModel


@dataclass(frozen=True, slots=True)
class Found:
    """What the proposals' checks learnt, by component name."""

    models: dict[str, str] = field(default_factory=dict)
    adapters: dict[str, str] = field(default_factory=dict)
    directions: dict[str, str] = field(default_factory=dict)
    configs: dict[str, PretrainedConfig] = field(default_factory=dict)


class Problems:
    """What went wrong so far, in the order found."""

    def __init__(self) -> None:
        self.items: list[tuple[type[TailriskError], str]] = []

    def add(self, kind: type[TailriskError], text: str) -> None:
        self.items.append((kind, text))

    @contextmanager
    def collected(self, where: str) -> Iterator[None]:
        """An error raised inside ends this part of the checks only."""
        try:
            yield
        except TailriskError as error:
            self.items += [(type(error), f"{where}: {line}") for line in str(error).splitlines()]

    def error(self) -> TailriskError:
        """One error that names all problems; a wrong configuration outranks a wrong prompt or model."""
        kinds = [kind for kind, _ in self.items]
        kind = next((k for k in (ConfigError, InputError, ModelError) if k in kinds), TailriskError)
        lines = [text for _, text in self.items[:_SHOWN]]
        if len(self.items) > _SHOWN:
            lines.append(f"and {len(self.items) - _SHOWN} more")
        return kind("\n".join(lines))


def read_parts(config: Config, model: str) -> Parts:
    """What ``model`` names, weights left out. Errors: ConfigError, ModelError."""
    from tailrisk.models.interventions.adapter import skeleton

    ref = resolve_model(model, config.base)
    architecture = load_config(ref)
    return Parts(architecture, load_tokenizer(ref), skeleton(architecture))


def check_system_prompt(target: Parts, where: str, found: Problems) -> None:
    """Whether system prompts reach the target."""
    with found.collected(where):
        if not tokens.reads_system_prompt(target.tokenizer):
            found.add(ConfigError, f"{where}: the model's chat template drops system prompts without a word")


def check_adapter(config: Config, name: str, target: Parts) -> str:
    """The adapter's digest. Errors: ConfigError or ModelError naming all that is wrong with it."""
    from tailrisk.models.interventions.adapter import adapter_digest, adapter_problems

    folder = config.resolve(name)
    if problems := adapter_problems(folder, target.skeleton):
        raise type(problems[0])("\n".join(str(p) for p in problems))
    return adapter_digest(folder)


def check_proposals(config: Config, target: Parts | None, stops: tuple[int, ...], found: Problems) -> Found:
    """All proposals; without a target only what can be seen of their own files."""
    result = Found()
    for proposal in config.proposals:
        where = f"proposal {proposal.name!r}"
        for place, change in proposal.placed_changes:
            key = f"{proposal.name}.{place}" if place else proposal.name
            at = f"{where}: {place}" if place else where
            with found.collected(at):
                _check_change(config, change, target, key, at, found, result)
        with found.collected(where):
            match proposal:
                case PrefixProposal() if target is not None:
                    _check_prefix(config, proposal, target, stops)
                case CheckpointProposal():
                    result.configs[proposal.name] = _check_checkpoint(config, proposal, target)
                    ref = resolve_model(proposal.model, config.base)
                    result.models[proposal.name] = model_digest(ref)
    return result


def _check_change(
    config: Config,
    change: Change,
    target: Parts | None,
    key: str,
    where: str,
    found: Problems,
    result: Found,
) -> None:
    match change:
        case SystemPromptChange() if target is not None:
            if change.text.strip():
                check_system_prompt(target, where, found)
        case LoraChange(adapter="target"):
            if config.target.adapter is None:
                raise ConfigError("adapter: target needs 'target.adapter', and there is none")
        case LoraChange() if target is not None:
            result.adapters[key] = check_adapter(config, change.adapter, target)
        case AblationChange() | VectorChange():
            result.directions[key] = _check_vectors(config, change, target)


def _check_vectors(config: Config, change: AblationChange | VectorChange, target: Parts | None) -> str:
    """Digest of a direction or a steering vector; without a target its file alone is looked at."""
    from tailrisk.models.interventions.blocks import blocks_of, hidden_size
    from tailrisk.models.vectorfiles import read_vectors

    blocks = len(blocks_of(target.skeleton)) if target is not None else 0
    size = hidden_size(target.skeleton) if target is not None else None
    if isinstance(change, AblationChange):
        vectors = read_vectors(config.resolve(change.direction), "direction")
        vectors.one(size)
    else:
        vectors = read_vectors(config.resolve(change.vector))
        if size is not None:
            vectors.at(change.layers, size, blocks)
    return vectors.digest


def _check_prefix(config: Config, proposal: PrefixProposal, target: Parts, stops: tuple[int, ...]) -> None:
    if proposal.mix < 1.0 or proposal.switch is not None:
        raise ConfigError(
            "a prefix is the target with its opening fixed; 'mix' and 'switch' do not apply to it"
        )
    size = vocab_size(target.config)
    limit = config.target.sampling.max_new_tokens
    for text in (proposal.text,) if proposal.text is not None else proposal.avoid or ():
        ids = tokens.opening_ids(target.tokenizer, text)
        if len(ids) >= limit:
            raise ConfigError(
                f"opening {text!r} has {len(ids)} tokens; it must be shorter than max_new_tokens ({limit})"
            )
        if proposal.text is not None and (held := [i for i in ids if i in stops]):
            raise ConfigError(f"opening {text!r} holds the stop token {held[0]}; nothing can follow it")
        if wrong := [i for i in ids if i >= size]:
            raise ConfigError(
                f"opening {text!r}: token ids {wrong} are outside the model's vocabulary ({size})"
            )


def _check_checkpoint(config: Config, proposal: CheckpointProposal, target: Parts | None) -> PretrainedConfig:
    other = read_parts(config, proposal.model)
    if target is None:
        return other.config
    ours, theirs = target.tokenizer, other.tokenizer
    sizes = vocab_size(target.config), vocab_size(other.config)
    differences = [
        what
        for what, same in (
            ("vocabulary", ours.get_vocab() == theirs.get_vocab()),
            ("special tokens", ours.all_special_ids == theirs.all_special_ids),
            ("end-of-sequence token", ours.eos_token_id == theirs.eos_token_id),
            ("splitting of a test sentence", _split(ours) == _split(theirs)),
            (f"number of output tokens ({sizes[0]} and {sizes[1]})", sizes[0] == sizes[1]),
        )
        if not same
    ]
    if differences:
        raise ConfigError(
            f"checkpoint {proposal.model!r} does not share the target's tokenizer: different "
            f"{', '.join(differences)}; the weights of its answers would be wrong"
        )
    return other.config


def _split(tokenizer: PreTrainedTokenizerBase) -> Any:
    return tokenizer(_PROBE, add_special_tokens=False, verbose=False)["input_ids"]


def vocab_size(config: PretrainedConfig) -> int:
    """Number of output tokens."""
    return int(config.get_text_config().vocab_size)


def max_positions(config: PretrainedConfig) -> int | None:
    """Length of the context; None where the architecture names no limit."""
    value = getattr(config.get_text_config(), "max_position_embeddings", None)
    return int(value) if isinstance(value, int) and value > 0 else None
