"""``tailrisk train direction``: the refusal direction of a target, and why it is this one."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tailrisk.cli.audit import ConfigPath, Overrides, wide
from tailrisk.cli.guard import Verbose, guarded
from tailrisk.errors import ConfigError, InputError

if TYPE_CHECKING:
    from rich.console import Console

    from tailrisk.config import Config
    from tailrisk.records import Prompt
    from tailrisk.training.directions import Surface
    from tailrisk.training.selection import Limits

SUFFIX = ".safetensors"


@guarded
def direction(
    config_path: ConfigPath,
    harmful: Annotated[
        Path, typer.Option(help="Prompts that the target refuses: jsonl, csv, tsv, parquet or txt.")
    ],
    harmless: Annotated[Path, typer.Option(help="Prompts of the same forms that it answers.")],
    out: Annotated[
        Path, typer.Option(help="The safetensors file to write; all scores go beside it as .json.")
    ],
    validation: Annotated[
        float, typer.Option(min=0.0, help="Share of each set kept aside for the choice, or their number.")
    ] = 0.25,
    layers: Annotated[
        str | None,
        typer.Option(help="Block outputs to try, such as 8-20,24. Without it: the first 80 % of the depth."),
    ] = None,
    positions: Annotated[
        int | None,
        typer.Option(
            min=1, help="Last tokens of the prompt to try. Without it: those of the template's end."
        ),
    ] = None,
    max_kl: Annotated[
        float, typer.Option(help="Most KL divergence (nats) on harmless prompts, the direction ablated.")
    ] = 0.1,
    refusals: Annotated[
        list[str] | None,
        typer.Option(help="A beginning of refusals; repeatable. Without it: found in what the target says."),
    ] = None,
    relax: Annotated[
        bool,
        typer.Option(
            help="Where none passes: double the KL limit until one does, then drop induced refusal."
        ),
    ] = False,
    keep_all: Annotated[
        bool,
        typer.Option(
            "--keep-all", help="Use harmful prompts that the target answers, harmless ones that it refuses."
        ),
    ] = False,
    dtype: Annotated[
        str | None, typer.Option(help="Read and score in this dtype, such as float32, not in the target's.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Most prompts of each file.")] = None,
    overrides: Overrides = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show nothing but errors.")] = False,
    verbose: Verbose = False,
) -> None:
    """Find the direction along which the target decides to refuse.

    CONFIG gives the target. Differences of mean activations of the two prompt sets, at every layer and
    end-of-prompt token, are scored on prompts kept aside; of those that change harmless answers little when
    ablated and induce refusal when added, the one is taken that leaves the least refusal when ablated.

    Example: tailrisk train direction audit.yaml --harmful bad.jsonl --harmless good.jsonl --out refusal.safetensors
    """
    from rich.console import Console

    from tailrisk.training.selection import Limits

    console = wide(Console(stderr=True, quiet=quiet, highlight=False))
    Limits(layers=1, max_kl=max_kl)
    check_out(out)
    numbers = None if layers is None else layer_numbers(layers)
    config = target_only(config_path, [*(overrides or ()), *([f"target.dtype={dtype}"] if dtype else ())])
    sets = read_sets(harmful, harmless, limit)
    surface, digests = _scored(
        config,
        sets,
        console,
        validation=validation,
        layers=numbers,
        positions=positions,
        refusals=tuple(refusals) if refusals else None,
        keep_all=keep_all,
    )
    _finish(surface, surface.limits(max_kl), relax, out, digests, console, as_json)


def target_only(path: Path, overrides: Sequence[str]) -> Config:
    """The configuration without its proposals and method: they may name what is only now being made."""
    from tailrisk.config import MixtureMethod
    from tailrisk.configfile import load_config
    from tailrisk.tracking import fetch_adapters

    config = load_config(path, tuple(overrides))
    return fetch_adapters(config.model_copy(update={"proposals": (), "method": MixtureMethod()}))


def read_sets(harmful: Path, harmless: Path, limit: int | None) -> tuple[list[Prompt], list[Prompt]]:
    """Both prompt files. Errors: ConfigError, InputError, also for a prompt that is in both."""
    from tailrisk.config import PromptsConfig
    from tailrisk.prompts import prompt_digest, read_prompts

    found = [
        read_prompts(path.absolute(), PromptsConfig(path=str(path), limit=limit), name)
        for path, name in ((harmful, "--harmful"), (harmless, "--harmless"))
    ]
    both = {prompt_digest(p) for p in found[0]} & {prompt_digest(p) for p in found[1]}
    if both:
        raise InputError(f"{len(both)} prompts are in {harmful} and in {harmless}; each belongs to one set")
    return found[0], found[1]


def layer_numbers(text: str) -> tuple[int, ...]:
    """``8-20,24`` as numbers. Errors: ConfigError."""
    found: list[int] = []
    for part in text.split(","):
        low, dash, high = part.strip().partition("-")
        if not low.isdecimal() or (dash and not high.isdecimal()) or (dash and int(high) < int(low)):
            raise ConfigError(f"--layers {text}: {part.strip()!r} is no block; write them as 8-20 or 8,12,16")
        found += range(int(low), int(high or low) + 1)
    return tuple(found)


def check_out(path: Path) -> None:
    """Errors: ConfigError for a name that cannot be written or read back, before any work is done."""
    if path.suffix != SUFFIX:
        raise ConfigError(f"--out {path}: must end in {SUFFIX}")
    if path.is_dir():
        raise ConfigError(f"--out {path}: is a folder; name a file")
    check_writable(path, path.absolute().parent)


def check_writable(out: Path, folder: Path) -> None:
    """Errors: ConfigError where ``folder``, which ``--out`` needs, can neither be made nor written to."""
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise ConfigError(f"--out {out}: {folder} cannot be written to; name another place")


def _scored(
    config: Config, sets: tuple[list[Prompt], list[Prompt]], console: Console, **wanted: Any
) -> tuple[Surface, tuple[str, str]]:
    """The scores of all candidates, and the digests of the model and its adapter ('' where it has none)."""
    from tailrisk.cli.steps import Steps
    from tailrisk.training.sizes import check_sizes

    check_sizes(len(sets[0]), len(sets[1]), wanted["validation"])
    console.print("checking model, adapter and prompts", style="dim", markup=False)
    from tailrisk.models.preflight import check

    named = [replace(p, id=f"{name}-{p.id}") for name, s in zip("ab", sets, strict=True) for p in s]
    found = check(config, named)
    console.print("loading the model", style="dim", markup=False)
    from tailrisk.proposals import load_target
    from tailrisk.training.directions import Wanted, score_directions

    context = load_target(config)
    with Steps(console) as steps:
        surface = score_directions(context.view, context.tokenizer, *sets, Wanted(**wanted), steps)
    return surface, (found.models["target"], found.adapters.get("target", ""))


def _finish(
    surface: Surface,
    limits: Limits,
    relax: bool,
    out: Path,
    digests: tuple[str, str],
    console: Console,
    as_json: bool,
) -> None:
    from tailrisk.cli import directiontable
    from tailrisk.models.directions import save_direction
    from tailrisk.training.selection import choose, why

    scores = out.with_suffix(".json")
    _write(scores, surface.to_json(limits))
    directiontable.sets(surface, console)
    try:
        choice = choose(surface.candidates, limits, relax=relax)
    except Exception:
        directiontable.table(surface, limits, None, console)
        console.print(f"all scores: {scores}", markup=False, soft_wrap=True)
        raise
    sentence = why(choice, len(surface.candidates), surface.refused)
    save_direction(out, surface.direction(choice.candidate, *digests))
    _write(scores, {**surface.to_json(limits), "choice": choice.to_json(), "why": sentence})
    directiontable.table(surface, limits, choice, console)
    directiontable.choice(choice, sentence, out, console)
    if as_json:
        told = {
            "why": sentence,
            "choice": choice.to_json(),
            "paths": {"direction": str(out), "scores": str(scores)},
        }
        typer.echo(json.dumps(told, allow_nan=False))


def _write(path: Path, data: dict[str, Any]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(data, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--out: {path} cannot be written ({error.strerror})") from error
