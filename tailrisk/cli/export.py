"""``tailrisk export``: a run for other tools: estimates as csv, draws as parquet, or a log of Inspect AI."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tailrisk.cli.guard import Verbose, guarded
from tailrisk.cli.show import RunPath

if TYPE_CHECKING:
    from tailrisk.records import Prompt
    from tailrisk.store import Manifest


class To(enum.StrEnum):
    INSPECT = "inspect"
    CSV = "csv"
    PARQUET = "parquet"


NAMES = {To.INSPECT: "{}.eval", To.CSV: "{}-estimates.csv", To.PARQUET: "{}-draws.parquet"}


@guarded
def export(
    run: RunPath,
    to: Annotated[
        To,
        typer.Option(
            "--to",
            help="csv: the estimates, a row a prompt; parquet: the draws, token ids too; inspect: a log of Inspect "
            "AI, a sample a draw.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="PATH",
            help="The file to write; default: in the current folder, by the run's name.",
        ),
    ] = None,
    hits: Annotated[
        int | None,
        typer.Option("--hits", metavar="N", min=1, help="inspect: only the N harmful draws that weigh most."),
    ] = None,
    redact: Annotated[
        bool, typer.Option("--redact", help="Hashes in place of prompts and answers, and no token ids.")
    ] = False,
    prompts: Annotated[
        Path | None,
        typer.Option(
            "--prompts", metavar="FILE", help="inspect: the run's prompts, where they are no longer found."
        ),
    ] = None,
    verbose: Verbose = False,
) -> None:
    """Write a run for other tools, from its log; it may still be going on.

    Example: tailrisk export runs/first-audit --to inspect --hits 200
    """
    from tailrisk.cli.folder import summary_of
    from tailrisk.cli.remoterun import to_look_at
    from tailrisk.errors import ConfigError

    if hits is not None and to is not To.INSPECT:
        raise ConfigError(
            "--hits is for --to inspect; hits.jsonl in the run folder has them all for other tools"
        )
    if to is To.INSPECT:
        from tailrisk.report.inspectlog import require_inspect

        require_inspect()
    folder = to_look_at(run)
    summary = summary_of(folder)
    path = out or Path(NAMES[to].format(folder.resolve().name))
    if path.is_dir():
        path = path / NAMES[to].format(folder.resolve().name)
    if not path.parent.is_dir():
        raise ConfigError(f"--out: {path.parent}: no such folder")
    if to is To.CSV:
        from tailrisk.report.estimatetable import write_estimates

        said = f"{write_estimates(path, summary['estimates']):,} prompts"
    elif to is To.PARQUET:
        said = f"{_parquet(folder, path, redact=redact):,} draws"
    else:
        said = f"{_inspect(folder, path, summary, hits, prompts, redact=redact):,} samples"
    typer.echo(f"{path}: {said}")


def _parquet(folder: Path, path: Path, *, redact: bool) -> int:
    from tailrisk.report.draws import redacted
    from tailrisk.store import exported, final_results, read_manifest, second_readings

    results = final_results(folder)
    names = read_manifest(folder).component_names
    taken = exported(redacted(results) if redact else results, path, names, second_readings(folder))
    return sum(result.n for result in taken)


def _inspect(
    folder: Path, path: Path, summary: dict[str, Any], hits: int | None, prompts: Path | None, *, redact: bool
) -> int:
    from tailrisk.report.draws import heaviest, weighted_draws
    from tailrisk.report.inspectlog import write_log
    from tailrisk.store import read_manifest

    manifest = read_manifest(folder)
    texts = {} if redact else {p.id: p for p in _prompts(folder, manifest, prompts)}
    corrected = bool((summary.get("audit") or {}).get("corrected"))
    only = None if hits is None else heaviest(weighted_draws(folder, corrected=corrected), hits)
    draws = weighted_draws(folder, corrected=corrected)
    return write_log(path, manifest, summary, draws, texts, only=only, redact=redact)


def _prompts(folder: Path, manifest: Manifest, given: Path | None) -> list[Prompt]:
    from tailrisk.cli.rejudge import config_folder, find_prompts
    from tailrisk.config import Config

    config = Config.model_validate(manifest.config)
    return find_prompts(manifest, config, given, [config_folder(folder, config), Path.cwd()])
