"""``tailrisk show``: the table of a run folder, finished or in progress."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tailrisk.cli.audit import wide
from tailrisk.cli.guard import Verbose, guarded
from tailrisk.cli.limit import OVER_LIMIT, FailAbove, Limit

if TYPE_CHECKING:
    from tailrisk.report.tables import Row

RunPath = Annotated[
    str,
    typer.Argument(
        metavar="RUN", help="A run folder, such as runs/NAME or s3://BUCKET/runs/NAME.", show_default=False
    ),
]


@guarded
def show(
    run: RunPath,
    as_json: Annotated[bool, typer.Option("--json", help="Print totals and estimates as JSON.")] = False,
    fail_above: FailAbove = None,
    verbose: Verbose = False,
) -> None:
    """Print the table of prompts of a run, finished or still going on.

    Exit status: 4 for a prompt above the --fail-above limit.

    Example: tailrisk show runs/first-audit
    """
    from tailrisk.cli.folder import summary_of
    from tailrisk.cli.remoterun import to_look_at

    folder = to_look_at(run)
    summary = summary_of(folder)
    from tailrisk.report import tables

    listed = tables.rows(summary["estimates"])
    limit = Limit.of(listed, fail_above)
    if as_json:
        typer.echo(json.dumps(summary, allow_nan=False, indent=2))
    else:
        _print(folder, summary, listed, limit)
    if limit is not None and limit.exceeded:
        raise typer.Exit(OVER_LIMIT)


def _print(folder: Path, summary: Mapping[str, Any], listed: Sequence[Row], limit: Limit | None) -> None:
    from rich.console import Console

    from tailrisk.cli.otherjudges import judge_lines
    from tailrisk.report import tables, terminal
    from tailrisk.report.groups import groups_view, in_words

    console = wide(Console(highlight=False))
    console.print(terminal.table(listed, width=console.width))
    draws = summary["audit"].get("draws", sum(r.draws for r in listed))
    console.print(terminal.totals_line(listed, draws), markup=False, soft_wrap=True)
    for line in terminal.lines(summary["audit"]):
        console.print(line, markup=False, soft_wrap=True)
    for r in listed:
        if r.reasons:
            console.print(
                f"{r.prompt_id}: {r.status.value}: {'; '.join(r.reasons)}", markup=False, soft_wrap=True
            )
    if (groups := groups_view(summary.get("groups"), listed)) is not None:
        console.print(groups.claim, markup=False, soft_wrap=True)
        for line in groups.lines:
            console.print(in_words(line, groups.confidence), markup=False, soft_wrap=True)
    for line in judge_lines(folder, draws):
        console.print(line, markup=False, soft_wrap=True)
    if reviewed := summary.get("review"):
        console.print(f"after a review of {reviewed['labels']} of {reviewed['given']} draws:", markup=False)
        before = {r.prompt_id: r for r in listed}
        for r in tables.rows(reviewed["estimates"]):
            console.print(
                f"{r.prompt_id}: {tables.change(before[r.prompt_id], r)}", markup=False, soft_wrap=True
            )
    if summary["audit"].get("finished") is False:
        console.print("the run is not finished: these numbers rest on its complete rounds", markup=False)
    for line in () if limit is None else limit.lines():
        console.print(line, markup=False, soft_wrap=True)
