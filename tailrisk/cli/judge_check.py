"""``tailrisk judge check``: a judge against answers that people have labelled."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tailrisk.cli.audit import Overrides, wide
from tailrisk.cli.guard import Verbose, guarded
from tailrisk.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

NAMES = {
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "false_positive_rate": "false-positive rate",
    "agreement": "agreement",
    "kappa": "Cohen's kappa",
}

JudgePath = Annotated[
    Path,
    typer.Argument(
        metavar="JUDGE", help="An audit's YAML file, or one with the key judge only.", show_default=False
    ),
]


def _column(what: str) -> Any:
    return typer.Option(
        f"--{what}", metavar="COLUMN", help=f"Column of the {what}s, if it is not found by name."
    )


@guarded
def check(
    judge_path: JudgePath,
    labels: Annotated[
        Path,
        typer.Argument(
            metavar="LABELS",
            help="Labelled answers: jsonl, csv or parquet with the columns prompt, response, label.",
            show_default=False,
        ),
    ],
    overrides: Overrides = None,
    threshold: Annotated[
        float | None, typer.Option("--threshold", help="Labels are numbers, and harm from this one on.")
    ] = None,
    prompt: Annotated[str | None, _column("prompt")] = None,
    response: Annotated[str | None, _column("response")] = None,
    label: Annotated[str | None, _column("label")] = None,
    confidence: Annotated[
        float, typer.Option("--confidence", min=0.5, max=0.9999, help="Of each interval in the table.")
    ] = 0.95,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Write check.json here, to be named by judge.check."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what check.json holds on stdout.")] = False,
    verbose: Verbose = False,
) -> None:
    """Measure a judge on labelled answers: sensitivity, specificity, agreement, and what it can resolve.

    Example: tailrisk judge check audit.yaml labels.jsonl --out check.json
    """
    from rich.console import Console

    from tailrisk.audit.judgecheck import check_content, judge_answers
    from tailrisk.judgeconfig import judge_identity
    from tailrisk.judgefile import load_judge
    from tailrisk.judges import build_spec
    from tailrisk.judges.identity import judge_digest
    from tailrisk.labelfiles import read_labels

    found = load_judge(judge_path, tuple(overrides or ()))
    read = read_labels(
        labels, columns={"prompt": prompt, "response": response, "label": label}, threshold=threshold
    )
    console = wide(Console(stderr=as_json, highlight=False))
    judge = build_spec(found.spec, found.base)
    judged = judge_answers(judge, read.answers)
    entry = {
        "settings": judge_identity(found.spec.model_dump(mode="json")),
        "digest": judge_digest(found.spec, found.base),
    }
    content = check_content(read, judged, entry, confidence=confidence, threshold=threshold)
    if out is not None:
        from tailrisk.store import write_json_atomic

        try:
            out.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"--out: {out.parent}: cannot be made ({error.strerror})") from None
        write_json_atomic(out, content)
    if as_json:
        typer.echo(json.dumps(content, allow_nan=False))
        return
    _print(content, console)
    if out is not None:
        console.print(
            f"written to {out}; name it as judge.check in the audit's configuration",
            markup=False,
            soft_wrap=True,
        )


def _print(content: Mapping[str, Any], console: Console) -> None:
    """Numbers and names only."""
    from tailrisk.report.tables import number, percent

    def say(text: str) -> None:
        console.print(text, markup=False, soft_wrap=True)

    labels, counts = content["labels"], content["counts"]
    say(f"{labels['answers']:,} labelled answers: {labels['harm']:,} harm, {labels['safe']:,} safe")
    if labels["duplicates"]:
        say(f"{labels['duplicates']:,} rows that repeat an answer with the same label were counted once")
    if labels["contradictory"]:
        lines = "; ".join(
            "lines " + ", ".join(map(str, group)) for group in labels["contradictory_lines"][:5]
        )
        say(f"{labels['contradictory']:,} answers have both labels and were left out: {lines}")
    console.print(_counts(counts))
    console.print(_rates(content))
    undetermined = sum(row["undetermined"] for row in counts.values())
    if undetermined:
        say(
            f"{undetermined:,} undetermined ({content['judge_errors']:,} because the judge failed), counted apart above"
        )
        for name in ("safe", "harm"):
            r = content[f"undetermined_as_{name}"]
            say(
                f"  taken as {name}: sensitivity {_interval(r['sensitivity'])}, "
                f"specificity {_interval(r['specificity'])}"
            )
    value = content["resolution"]["value"]
    say(f"smallest probability that this judge resolves: {number(value)}")
    say(f"  ({content['resolution']['definition']})")
    if labels["safe"] and not counts["safe"]["harm"]:
        rate = content["rates"]["false_positive_rate"]["high"]
        say(
            f"  no safe answer was judged harm; {counts['safe']['safe']:,} of them show that no more than "
            f"{percent(rate)} are"
        )


def _counts(counts: Mapping[str, Mapping[str, int]]) -> Any:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("label")
    for verdict in counts["harm"]:
        table.add_column(f"judged {verdict}" if verdict != "undetermined" else verdict, justify="right")
    for kind, row in counts.items():
        table.add_row(kind, *(f"{n:,}" for n in row.values()))
    return table


def _rates(content: Mapping[str, Any]) -> Any:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    table.add_column("value", justify="right")
    table.add_column(f"{100 * content['confidence']:g}% interval (exact)")
    for key, name in NAMES.items():
        share = content["rates"][key]
        table.add_row(name, _value(share["value"]), f"{_value(share['low'])} to {_value(share['high'])}")
    return table


def _value(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _interval(share: Mapping[str, float | None]) -> str:
    return f"{_value(share['value'])} [{_value(share['low'])}, {_value(share['high'])}]"
