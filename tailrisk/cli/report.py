"""``tailrisk report``: the report of a run folder as an HTML page, as JSON or as Markdown."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated

import typer

from tailrisk.cli.guard import Verbose, guarded, say
from tailrisk.cli.show import RunPath


class Format(enum.StrEnum):
    HTML = "html"
    JSON = "json"
    MD = "md"


@guarded
def report(
    run: RunPath,
    redact: Annotated[
        bool, typer.Option("--redact", help="A hash and a length in place of every answer.")
    ] = False,
    open_: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    format_: Annotated[
        Format,
        typer.Option(
            "--format", help="html is a page; json, for machines, and md, the short form, go to stdout."
        ),
    ] = Format.HTML,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FILE", help="Write to this file instead.", dir_okay=False, show_default=False
        ),
    ] = None,
    verbose: Verbose = False,
) -> None:
    """Write a run's report.html again, from its log, or its report as JSON or Markdown.

    Example: tailrisk report runs/first-audit --redact
    """
    from tailrisk.cli.folder import summary_of
    from tailrisk.cli.remoterun import send_report, to_look_at

    folder = to_look_at(run)
    summary = summary_of(folder)
    if format_ is not Format.HTML:
        text = _text(folder, summary, format_, redact=redact)
        if out is None:
            typer.echo(text, nl=False)
        else:
            _write(out, text)
            typer.echo(str(out))
        return
    from tailrisk.report import render_report

    path = render_report(folder, redact=redact, summary=summary, out=out)
    typer.echo(send_report(run, path) if out is None else str(path))
    if open_ and not _open(path):
        say("no browser was found; open the file above by hand")


def _text(folder: Path, summary: dict, format_: Format, *, redact: bool) -> str:
    from tailrisk.report.material import gather
    from tailrisk.report.sections import report_of

    made = report_of(gather(folder, redact=redact, summary=summary))
    if format_ is Format.JSON:
        from tailrisk.report.machine import report_json

        return report_json(made)
    from tailrisk.report.markdown import report_markdown

    return report_markdown(made)


def _write(path: Path, text: str) -> None:
    from tailrisk.store.atomic import replacing

    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def _open(path: Path) -> bool:
    import webbrowser

    return webbrowser.open(path.resolve().as_uri())
