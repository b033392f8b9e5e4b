"""``tailrisk compare``: two audits of the same prompts, prompt by prompt and as a whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tailrisk.cli.audit import wide
from tailrisk.cli.guard import Verbose, guarded
from tailrisk.cli.limit import OVER_LIMIT, FailAbove, Limit

if TYPE_CHECKING:
    from tailrisk.audit.comparing import Audited, Difference, Pairing

FirstRun = Annotated[
    str, typer.Argument(metavar="A", help="A run folder: what is compared with.", show_default=False)
]
SecondRun = Annotated[
    str,
    typer.Argument(
        metavar="B", help="Another one, of the same prompts: the newer version.", show_default=False
    ),
]


@guarded
def compare(
    first: FirstRun,
    second: SecondRun,
    confidence: Annotated[
        float, typer.Option("--confidence", help="Of all verdicts together.", min=0.5, max=0.9999)
    ] = 0.95,
    margin: Annotated[
        float | None,
        typer.Option(
            "--margin",
            metavar="F",
            min=1.0,
            help="Say which prompts are shown to be at most F times as likely in B.",
        ),
    ] = None,
    anyway: Annotated[
        bool,
        typer.Option("--anyway", help="Compare though judge or sampling settings differ."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON on stdout.")] = False,
    markdown: Annotated[
        Path | None, typer.Option("--markdown", metavar="FILE", help="Write a page to FILE.")
    ] = None,
    fail_if_worse: Annotated[
        bool,
        typer.Option(
            "--fail-if-worse", help="Exit with 4 if a prompt of B, or the whole, is shown to be worse."
        ),
    ] = False,
    fail_above: FailAbove = None,
    verbose: Verbose = False,
) -> None:
    """Compare two audits of the same prompts: where B is worse than A, where better, and by what factor.

    Exit status: 4 for a prompt, or the whole, that is shown to be worse (--fail-if-worse), or for a prompt of B above
    the --fail-above limit.

    Example: tailrisk compare runs/before runs/after --fail-if-worse
    """
    from rich.console import Console

    from tailrisk.audit.comparing import differing, pair, read_audited, refuse
    from tailrisk.cli.remoterun import to_look_at
    from tailrisk.errors import ConfigError
    from tailrisk.report import compare as said
    from tailrisk.report import tables
    from tailrisk.stats.compare import compare as compare_sides

    folders = to_look_at(first), to_look_at(second)
    if folders[0].resolve() == folders[1].resolve():
        raise ConfigError(f"{first} and {second} are the same run; give two")
    a, b = (read_audited(folder) for folder in folders)
    compared, defining = differing(a, b)
    if defining and not anyway:
        refuse(defining)
    paired = pair(a, b)
    result = compare_sides(
        [(a.sides[key], b.sides[key]) for key in paired.both], confidence=confidence, margin=margin
    )
    listed = tables.rows(b.sides[key].estimate.to_json() for key in b.sides)
    limit = Limit.of(listed, fail_above)
    worse = fail_if_worse and result.worse
    code = OVER_LIMIT if worse or (limit is not None and limit.exceeded) else 0
    head = heading((first, a), (second, b), compared)
    notes = warnings(a, b, paired, defining)
    if markdown is not None:
        from tailrisk.store.atomic import write_bytes_atomic

        write_bytes_atomic(
            markdown, said.markdown(result, [*head, *notes]).encode("utf-8", "backslashreplace")
        )
    if as_json:
        more: dict[str, Any] = {
            "a": {"run": first, "draws": a.draws, "finished": a.finished},
            "b": {"run": second, "draws": b.draws, "finished": b.finished},
            "compared": [_named(d) for d in compared],
            "differing": [_named(d) for d in defining],
            "unpaired": {"only_a": paired.only_a, "only_b": paired.only_b, "changed": paired.changed},
            "notes": notes,
            "fail_above": None if limit is None else limit.to_json(),
            "exit_code": code,
        }
        typer.echo(json.dumps(said.record(result, more), allow_nan=False, indent=2))
        raise typer.Exit(code)
    console = wide(Console(highlight=False))
    for line in [*head, *(f"warning: {note}" for note in notes)]:
        console.print(line, markup=False, soft_wrap=True)
    console.print(said.table(result))
    for line in said.overall_lines(result):
        console.print(line, markup=False, soft_wrap=True)
    if worse:
        console.print("B is shown to be worse (--fail-if-worse)", markup=False)
    for line in () if limit is None else limit.lines():
        console.print(f"B: {line}", markup=False, soft_wrap=True)
    raise typer.Exit(code)


def _named(difference: Difference) -> dict[str, str]:
    return dict(zip(("setting", "a", "b"), difference, strict=True))


def heading(a: tuple[str, Audited], b: tuple[str, Audited], compared: list[Difference]) -> list[str]:
    """The two runs, and what of the target differs between them."""
    from tailrisk.report.clean import visible

    lines = [
        f"{name}: {visible(run)}, {audited.draws:,} draws" for name, (run, audited) in (("A", a), ("B", b))
    ]
    settings = [d for d in compared if d[0].startswith("target.")]
    if not compared:
        lines.append("compared: the same target twice")
    for name, before, now in settings or compared:
        lines.append(f"compared: {name}: {visible(before)} in A, {visible(now)} in B")
    return lines


def warnings(a: Audited, b: Audited, paired: Pairing, defining: list[Difference]) -> list[str]:
    """What takes away from the comparison."""
    from tailrisk.report.processors import unlike

    found = [
        f"{name} differs ({before} in A, {now} in B): this is no comparison of two versions"
        for name, before, now in defining
    ]
    for name, audited in (("A", a), ("B", b)):
        if not audited.finished:
            found.append(f"{name} is not finished: its numbers rest on its complete rounds")
    if apart := unlike(a.totals, b.totals):
        found.append(apart)
    if a.manifest.identity["run"] == b.manifest.identity["run"]:
        found.append(
            "both audits have the same run.seed: proposals that are the same in both made the same draws, and the "
            "intervals take them for independent; give the next one another seed"
        )
    left_out = [
        (paired.only_a, "are in A only"),
        (paired.only_b, "are in B only"),
        (paired.changed, "have other messages in B than in A"),
    ]
    found += [
        f"not compared: {len(ids)} prompts {what} ({', '.join(ids[:5])}{', ...' if len(ids) > 5 else ''})"
        for ids, what in left_out
        if ids
    ]
    return found
