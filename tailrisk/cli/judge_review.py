"""``tailrisk judge review``: give the draws that carry a run's estimates to people, and take their labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tailrisk.cli.guard import Verbose, guarded

if TYPE_CHECKING:
    from tailrisk.audit.state import AuditState
    from tailrisk.cli.reviewfiles import Labelled
    from tailrisk.store import RunStore


@guarded
def review(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="A run folder, such as runs/NAME.", show_default=False)
    ],
    calls: Annotated[int, typer.Option("--calls", min=1, help="How many draws to give out.")] = 50,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Where to: .jsonl or .csv (default: RUN/review.jsonl)."),
    ] = None,
    labels: Annotated[
        Path | None, typer.Option("--labels", metavar="FILE", help="Read the labels of such a file back.")
    ] = None,
    verbose: Verbose = False,
) -> None:
    """Write the draws that carry a run's estimates to a file for labelling, or read the labels back.

    Labels are harm, safe or unsure. The estimates after the review stand beside those before it in show and report.

    Example: tailrisk judge review runs/first-audit --calls 50 --out review.csv
    """
    from tailrisk.errors import ConfigError

    if not run.is_dir():
        raise ConfigError(
            f"{run}: no such folder; a review needs a run folder on this machine, such as runs/NAME"
        )
    if labels is not None:
        _take(run, labels)
    else:
        _give(run, calls, out or run / "review.jsonl")


def _opened(run: Path) -> tuple[RunStore, AuditState]:
    """The run with its lock, and what its log says. The store is to be closed."""
    from tailrisk.audit.recovery import rebuild_folder
    from tailrisk.config import Config
    from tailrisk.errors import StoreError
    from tailrisk.store import RunStore, listed_prompts, read_manifest

    manifest = read_manifest(run)
    store = RunStore.open(run, manifest)
    state = rebuild_folder(Config.model_validate(manifest.config), listed_prompts(manifest), run)
    if state is None:
        store.close()
        raise StoreError(f"{run}: nothing has been drawn yet")
    return store, state


def _give(run: Path, calls: int, out: Path) -> None:
    from tailrisk.audit.review import given, plan_review
    from tailrisk.cli.reviewfiles import write_review
    from tailrisk.errors import InputError
    from tailrisk.store import texts_of

    store, state = _opened(run)
    with store:
        if again := bool(given(state)):
            typer.echo(
                "this run has given out draws before: these are the same ones (--calls is not looked at)",
                err=True,
            )
        for asked in [] if again else plan_review(state, calls):
            store.append_asked(asked)
            state.add_asked(asked)
    listed = given(state)
    if not listed:
        raise InputError(f"{run}: it has no finished round to give draws of")
    wanted: dict[str, list[int]] = {}
    for key in listed:
        batch, _, draw = key.rpartition("#")
        wanted.setdefault(batch, []).append(int(draw))
    answers = {
        f"{batch}#{draw}": text
        for batch, found in texts_of(run, wanted).items()
        for draw, text in zip(wanted[batch], found, strict=True)
    }
    prompts = _prompt_texts(run)
    rows: list[dict[str, Any]] = [
        {
            "index": number,
            "key": key,
            "prompt_id": prompt_id,
            "prompt": prompts.get(prompt_id, ""),
            "answer": answers[key],
            "pi": pi,
            "label": "",
        }
        for number, (key, (prompt_id, _, _, pi)) in enumerate(listed.items(), 1)
    ]
    write_review(out, rows)
    if not prompts:
        typer.echo(
            "the prompts' file is not there any more: column prompt is empty, prompt_id says which", err=True
        )
    typer.echo(
        f"{out}: {len(rows)} draws; fill in the column label with harm, safe or unsure, then run "
        f"tailrisk judge review {run} --labels {out}"
    )


def _prompt_texts(run: Path) -> dict[str, str]:
    """Prompt -> its text, where the run's prompts can still be read; they are not kept in the run folder."""
    from tailrisk.config import Config
    from tailrisk.errors import TailriskError
    from tailrisk.prompts import load_prompts
    from tailrisk.store import read_manifest

    try:
        return {p.id: p.text for p in load_prompts(Config.model_validate(read_manifest(run).config))}
    except TailriskError:
        return {}


def _take(run: Path, labels: Path) -> None:
    from tailrisk.audit.review import given, review_record
    from tailrisk.cli.folder import summary_of
    from tailrisk.cli.reviewfiles import read_labels
    from tailrisk.errors import InputError
    from tailrisk.report import render_report, tables
    from tailrisk.store import write_json_atomic

    store, state = _opened(run)
    with store:
        listed = given(state)
        if not listed:
            raise InputError(f"{run}: no draws were given out; run tailrisk judge review {run} first")
        labelled = read_labels(labels, listed)
        _log(store, state, listed, labelled)
        record = review_record(state)
        if (run / "estimates.json").exists() and record is not None:
            write_json_atomic(run / "estimates.json", {**summary_of(run), "review": record})
            render_report(run)
    typer.echo(f"{len(labelled.verdicts)} labels taken, {labelled.open} of {len(listed)} draws without one")
    before = {r.prompt_id: r for r in tables.rows(summary_of(run)["estimates"])}
    for after in tables.rows(record["estimates"] if record else []):
        typer.echo(f"{after.prompt_id}: {tables.change(before[after.prompt_id], after)}")


def _log(
    store: RunStore, state: AuditState, listed: dict[str, tuple[str, int, int, float]], labelled: Labelled
) -> None:
    import numpy as np

    from tailrisk.records import JudgedTexts
    from tailrisk.store import Told

    said: dict[tuple[str, int], dict[int, int]] = {}
    for key, verdict in labelled.verdicts.items():
        prompt_id, round_, row, _ = listed[key]
        said.setdefault((prompt_id, round_), {})[row] = int(verdict)
    for (prompt_id, round_), rows in sorted(said.items()):
        ordered = tuple(sorted(rows))
        verdicts = np.array([rows[r] for r in ordered], dtype=np.int8)
        judged = JudgedTexts(verdicts, np.full(len(ordered), np.nan), [""] * len(ordered))
        told = Told(reader="review", round=round_, prompt_id=prompt_id, rows=ordered, judged=judged)
        store.append_told(told)
        state.add_told(told)
