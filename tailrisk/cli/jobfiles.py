"""What a configuration names by path, and which files of this machine a job needs for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from tailrisk.config import Config, LinearJudge, ModelJudge, PythonJudge
from tailrisk.errors import ConfigError
from tailrisk.judges.sources import judge_sources
from tailrisk.models.embedded import EMBEDDED
from tailrisk.models.interventions.adapter import CONFIG, WEIGHTS
from tailrisk.models.loading import MODEL_FILES
from tailrisk.proposalconfig import (
    AblationChange,
    CheckpointProposal,
    LoraChange,
    VectorChange,
)

Kind = Literal["file", "judge", "adapter", "model"]


class Named(NamedTuple):
    """A path as the configuration has it, at the key ``field``."""

    field: str
    text: str
    kind: Kind

    @property
    def relative(self) -> bool:
        """Whether it is a path on this machine, to be read relative to the configuration."""
        return not (self.elsewhere or self.text.startswith("~"))

    @property
    def elsewhere(self) -> bool:
        """Whether it means the same on every machine that has it."""
        return Path(self.text).is_absolute() or self.text.startswith(("models:", "runs:"))


class Source(NamedTuple):
    """A file to send: where it is, and the path by which the configuration leads to it."""

    field: str
    file: Path
    path: Path


def named_paths(config: Config) -> Iterator[Named]:
    """Every path in the configuration that an audit reads; names of hub models are none."""
    yield Named("prompts.path", config.prompts.path, "file")
    yield from _models(config, "target.model", config.target.model)
    if config.target.adapter is not None:
        yield Named("target.adapter", config.target.adapter, "adapter")
    for number, proposal in enumerate(config.proposals):
        place = f"proposals.{number}"
        if isinstance(proposal, CheckpointProposal):
            yield from _models(config, f"{place}.model", proposal.model)
        for inner, change in proposal.placed_changes:
            where = f"{place}.{inner}" if inner else place
            match change:
                case LoraChange() if change.adapter != "target":
                    yield Named(f"{where}.adapter", change.adapter, "adapter")
                case AblationChange():
                    yield Named(f"{where}.direction", change.direction, "file")
                case VectorChange():
                    yield Named(f"{where}.vector", change.vector, "file")
    for place, judge in config.judges:
        if isinstance(judge, PythonJudge):
            where = judge.function.rpartition(":")[0]
            yield Named(f"{place}.function", where if where.endswith(".py") else ".", "judge")
        elif isinstance(judge, LinearJudge):
            yield Named(f"{place}.weights", judge.weights, "file")
        elif isinstance(judge, ModelJudge):
            yield from _models(config, f"{place}.model", judge.model)
            if judge.adapter is not None and _is_folder(config, judge.adapter):
                yield Named(f"{place}.adapter", judge.adapter, "adapter")
    if config.judge.check is not None:
        yield Named("judge.check", config.judge.check, "file")
    if config.learned and config.training.deepspeed is not None:
        yield Named("training.deepspeed", config.training.deepspeed, "file")


def sources(config: Config) -> list[Source]:
    """The files behind all relative paths.

    Raises:
        ConfigError: a file or folder is not there; all of them are named.
    """
    found: list[Source] = []
    problems: list[str] = []
    for named in named_paths(config):
        if not named.relative:
            continue
        try:
            found += _files(config, named)
        except ConfigError as error:
            problems.append(str(error))
    if problems:
        raise ConfigError("\n".join(problems))
    return list({source.path: source for source in found}.values())


def _models(config: Config, field: str, name: str) -> Iterator[Named]:
    """A folder wins over a hub id of the same spelling, as when models are loaded."""
    if name != EMBEDDED and _is_folder(config, name):
        yield Named(field, name, "model")


def _is_folder(config: Config, name: str) -> bool:
    return Path(name).expanduser().is_absolute() or config.resolve(name).is_dir()


def _files(config: Config, named: Named) -> list[Source]:
    real, path = config.resolve(named.text), config.base / named.text
    match named.kind:
        case "file":
            if not real.is_file():
                raise ConfigError(_absent(named, real, "file"))
            return [Source(named.field, real, path)]
        case "judge":
            judge = dict(config.judges)[named.field.removesuffix(".function")]
            assert isinstance(judge, PythonJudge)
            if (is_file := named.text != ".") and not real.is_file():
                raise ConfigError(_absent(named, real, "file"))
            folder, files = judge_sources(judge, config.base)
            start = path.parent if is_file else path
            return [Source(named.field, file, start / file.relative_to(folder)) for file in files]
        case "adapter":
            names = [CONFIG, WEIGHTS]
        case "model":
            names = sorted({file.name for pattern in MODEL_FILES for file in real.glob(pattern)})
    if not real.is_dir():
        raise ConfigError(_absent(named, real, "folder"))
    if lost := [name for name in names if not (real / name).is_file()]:
        raise ConfigError(f"{named.field}: {named.text!r}: {real} has no {' and no '.join(lost)}")
    return [Source(named.field, real / name, path / name) for name in names]


def _absent(named: Named, place: Path, what: str) -> str:
    return (
        f"{named.field}: {named.text!r}: no such {what} ({place}); the path is relative to the configuration's "
        "folder. Correct it, or give the absolute path that it has on the cluster"
    )
