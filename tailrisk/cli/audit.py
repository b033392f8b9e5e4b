"""``tailrisk audit``: run an audit, or go on with one that was interrupted (the same command)."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tailrisk.cli import guard
from tailrisk.cli.guard import Verbose, guarded
from tailrisk.cli.limit import OVER_LIMIT, FailAbove, Limit

if TYPE_CHECKING:
    from rich.console import Console

    from tailrisk.cli.wiring import Finished

SHORT = 3
WIDE = 160

ConfigPath = Annotated[
    Path, typer.Argument(metavar="CONFIG", help="The audit's YAML file.", show_default=False)
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key: budget.draws=500, proposals.0.mix=0.5."),
]


@guarded
def audit(
    config_path: ConfigPath,
    overrides: Overrides = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the totals as JSON on stdout.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show nothing but errors.")] = False,
    fail_above: FailAbove = None,
    short_ok: Annotated[
        bool,
        typer.Option(
            "--short-ok",
            help="Exit with 0, not 3, where the audit finished short of the precision asked for.",
        ),
    ] = False,
    verbose: Verbose = False,
) -> None:
    """Run an audit; the same command again resumes it.

    Exit status: 0 done, 1 error, 2 usage, 3 finished short of the precision asked for, 130 interrupted,
    and 4 for a prompt above the --fail-above limit.

    Example: tailrisk audit examples/quickstart/audit.yaml --set budget.draws=2000
    """
    from rich.console import Console

    guard.state.resume = resume_command(sys.argv)
    console = wide(Console(stderr=True, quiet=quiet, highlight=False))

    from tailrisk.cli.wiring import execute

    finished = execute(config_path, tuple(overrides or ()), console, live=console.is_terminal and not quiet)
    limit = Limit.of(finished.rows, fail_above)
    code = OVER_LIMIT if limit is not None and limit.exceeded else finished.outcome.exit_code
    code = 0 if short_ok and code == SHORT else code
    summarise(finished, console, limit)
    if finished.unsent:
        code = 1
        guard.say(
            f"error: the audit is complete in {finished.config.run_folder}, but not all of it is at "
            f"{finished.config.run.address}: {finished.unsent}. Run the same command again to send the rest"
        )
    if as_json:
        typer.echo(json.dumps(machine_summary(finished, code, limit), allow_nan=False))
    raise typer.Exit(code)


def wide(console: Console) -> Console:
    """A pipe or a file has no width of its own: give every column the room it needs."""
    if not console.is_terminal:
        console.width = WIDE
    return console


def resume_command(argv: list[str]) -> str:
    """The command that was typed, to be typed again."""
    words = argv[1:] if len(argv) > 1 else ["audit"]
    return shlex.join(["tailrisk", *words])


def summarise(finished: Finished, console: Console, limit: Limit | None) -> None:
    from tailrisk.report import terminal

    console.print(terminal.table(finished.rows, width=console.width))
    draws = finished.outcome.totals["draws"]
    line = terminal.totals_line(finished.rows, draws, finished.config.budget.draws)
    console.print(line, markup=False, soft_wrap=True)
    for line in terminal.lines(finished.outcome.totals):
        console.print(line, markup=False, soft_wrap=True)
    if finished.outcome.exit_code == SHORT:
        console.print("some prompts are not settled: their status says why (tailrisk show RUN)", markup=False)
    for line in () if limit is None else limit.lines():
        console.print(line, markup=False, soft_wrap=True)
    for name, place in finished.paths.items():
        console.print(f"{name + ':':12}{place}", markup=False, soft_wrap=True)


def machine_summary(finished: Finished, code: int, limit: Limit | None) -> dict[str, object]:
    return {
        "audit": finished.outcome.totals,
        "exit_code": code,
        "paths": {name: str(place) for name, place in finished.paths.items()},
        **({} if limit is None else {"fail_above": limit.to_json()}),
    }
