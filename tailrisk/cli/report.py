"""``tailrisk report``: the HTML page of a run folder, or its numbers as JSON."""

from __future__ import annotations

import enum
import json
from pathlib import Path
from typing import Annotated

import typer

from tailrisk.cli.guard import Verbose, guarded, say
from tailrisk.cli.show import RunPath


class Format(enum.StrEnum):
    HTML = "html"
    JSON = "json"


@guarded
def report(
    run: RunPath,
    redact: Annotated[
        bool, typer.Option("--redact", help="A hash and a length in place of every answer.")
    ] = False,
    open_: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    format_: Annotated[
        Format, typer.Option("--format", help="json prints the numbers on stdout.")
    ] = Format.HTML,
    verbose: Verbose = False,
) -> None:
    """Write a run's report.html again, from its log.

    Example: tailrisk report runs/first-audit --redact
    """
    from tailrisk.cli.folder import summary_of
    from tailrisk.cli.remoterun import send_report, to_look_at

    folder = to_look_at(run)
    summary = summary_of(folder)
    if format_ is Format.JSON:
        typer.echo(json.dumps(summary, allow_nan=False, indent=2))
        return
    from tailrisk.report import render_report

    path = render_report(folder, redact=redact, summary=summary)
    typer.echo(send_report(run, path))
    if open_ and not _open(path):
        say("no browser was found; open the file above by hand")


def _open(path: Path) -> bool:
    import webbrowser

    return webbrowser.open(path.resolve().as_uri())
