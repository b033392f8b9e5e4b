"""``tailrisk doctor``: what this machine has, one line each, and the exact fix for what it lacks."""

from __future__ import annotations

import typer

from tailrisk.cli.guard import Verbose, guarded

MARKS = {"ok": "✓", "missing": "✗", "note": "–"}


@guarded
def doctor(verbose: Verbose = False) -> None:
    """Check versions, cores, memory, disk, GPU, Ray, MLflow and the embedded model.

    Example: tailrisk doctor
    """
    from tailrisk.cli.checks import all_checks

    failed = 0
    for check in all_checks():
        failed += check.state == "missing"
        typer.echo(f"{MARKS[check.state]} {check.name}: {check.seen}")
        if check.fix:
            typer.echo(f"    fix: {check.fix}")
    if failed:
        typer.echo(f"{failed} thing{'s' if failed > 1 else ''} to fix", err=True)
        raise typer.Exit(1)
