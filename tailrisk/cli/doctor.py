"""``tailrisk doctor``: what this machine has, one line each, and the exact fix for what it lacks."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Annotated

import typer

from tailrisk.cli.guard import Verbose, guarded

MARKS = {"ok": "✓", "missing": "✗", "note": "–"}


@guarded
def doctor(
    config_path: Annotated[
        Path | None,
        typer.Argument(
            metavar="[CONFIG]", help="An audit's YAML file: is its judge within reach?", show_default=False
        ),
    ] = None,
    verbose: Verbose = False,
) -> None:
    """Check versions, cores, memory, disk, GPU, Ray, MLflow and the embedded model; with CONFIG its judge, too.

    Example: tailrisk doctor my-audit/tailrisk.yaml
    """
    from tailrisk.cli.checks import all_checks
    from tailrisk.cli.judgechecks import judge_checks

    failed = 0
    for check in itertools.chain(judge_checks(config_path), all_checks()):
        failed += check.state == "missing"
        typer.echo(f"{MARKS[check.state]} {check.name}: {check.seen}")
        if check.fix:
            typer.echo(f"    fix: {check.fix}")
    if failed:
        typer.echo(f"{failed} thing{'s' if failed > 1 else ''} to fix", err=True)
        raise typer.Exit(1)
