"""``tailrisk train lora``: an adapter that answers as the target does when it does harm."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tailrisk.cli import guard
from tailrisk.cli.audit import ConfigPath, Overrides, resume_command, wide
from tailrisk.cli.guard import Verbose, guarded
from tailrisk.cli.train_direction import check_writable
from tailrisk.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from tailrisk.cli.lorarounds import Round
    from tailrisk.config import Config


@guarded
def lora(
    config_path: ConfigPath,
    out: Annotated[Path, typer.Option(help="The folder for draws and adapters; begun work there goes on.")],
    overrides: Overrides = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show nothing but errors.")] = False,
    verbose: Verbose = False,
) -> None:
    """Fit a LoRA to the target's own harmful answers, weighted as the estimate weighs them.

    CONFIG is an audit's; its section 'training' says how. Each round draws from the audit's proposals and from
    what the round before learned, and fits an adapter to what was judged harmful. Prompts kept aside tell when to
    stop, and how far in nats the adapter is from the law of harmful answers.

    Example: tailrisk train lora audit.yaml --out learned --set training.draws=2000
    """
    from rich.console import Console

    guard.state.resume = resume_command(sys.argv)
    console = wide(Console(stderr=True, quiet=quiet, highlight=False))

    from tailrisk.cli.lorarounds import learn
    from tailrisk.cli.wiring import on_ray
    from tailrisk.configfile import load_config
    from tailrisk.tracking import fetch_adapters

    config = load_config(config_path, tuple(overrides or ()))
    check_folder(out)
    config = fetch_adapters(config)
    rounds = learn(config, out, console, live=console.is_terminal and not quiet, workers=on_ray)
    _tell(rounds, config, console)
    if as_json:
        typer.echo(json.dumps(to_json(rounds, config), allow_nan=False))


def check_folder(out: Path) -> None:
    """Errors: ConfigError where the folder cannot be made."""
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out {out}: is a file; name a folder")
    check_writable(out, out.absolute())


def proposal(config: Config, adapter: Path) -> dict[str, Any]:
    """The last adapter as a proposal of ``config``, its folder named relative to it."""
    from tailrisk.training.lorajob import beside, learned_proposal

    made = learned_proposal(config, "learned", beside(config, adapter))
    return {"name": made.name, "kind": made.kind, **made.model_dump(mode="json", exclude_defaults=True)}


def to_json(rounds: list[Round], config: Config) -> dict[str, Any]:
    return {
        "rounds": [
            {"round": r.number, "draws": r.draws, "hits": r.hits, "adapter": str(r.adapter), **_figures(r)}
            for r in rounds
        ],
        "proposal": proposal(config, rounds[-1].adapter),
    }


def _figures(done: Round) -> dict[str, Any]:
    assert done.card is not None
    return {key: done.card[key] for key in ("divergence", "data")}


def _tell(rounds: list[Round], config: Config, console: Console) -> None:
    from tailrisk.training.persona_files import proposal_yaml

    for done in rounds:
        far = _figures(done)["divergence"]
        console.print(
            f"round {done.number}: {done.draws:,} draws, {done.hits:,} harmful; {far['before']:.2f} nats from the law "
            f"of harm before, {far['after']:.2f} after {far['epoch']} epochs",
            markup=False,
            soft_wrap=True,
        )
    last = rounds[-1]
    if _figures(last)["divergence"]["epoch"] == 0:
        console.print(
            "warning: no epoch came nearer than the base itself, so the adapter changes nothing; give more "
            "training.draws, another training.base, or a lower training.learning_rate",
            markup=False,
            soft_wrap=True,
        )
    console.print(f"written: {last.adapter}. As a proposal:", markup=False, soft_wrap=True)
    console.print(proposal_yaml(proposal(config, last.adapter)), markup=False, soft_wrap=True)
