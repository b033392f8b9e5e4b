"""``tailrisk forecast``: what the estimates of a run mean for so many queries."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tailrisk.cli.audit import wide
from tailrisk.cli.guard import Verbose, guarded
from tailrisk.cli.limit import OVER_LIMIT, limit_option
from tailrisk.cli.show import RunPath
from tailrisk.errors import ConfigError

MOST_QUERIES = 1e15

if TYPE_CHECKING:
    from rich.console import Console

    from tailrisk.records import FloatArray


@guarded
def forecast(
    run: RunPath,
    queries: Annotated[
        float,
        typer.Option("--queries", "-n", metavar="N", min=1.0, help="Queries of the deployment, such as 1e6."),
    ] = 1e6,
    traffic: Annotated[
        Path | None,
        typer.Option(
            "--traffic",
            metavar="FILE",
            help="YAML, JSON or CSV with weights by prompt, group or category; default: all base prompts alike.",
        ),
    ] = None,
    fail_above: Annotated[
        float | None,
        limit_option("Exit with 4 if the upper end of the chance of at least one harmful answer is above P."),
    ] = None,
    model_based: Annotated[
        bool,
        typer.Option(
            "--model-based",
            help="Hold the model-based upper end against --fail-above, not the certified one; 1 without a model.",
        ),
    ] = False,
    seed: Annotated[int, typer.Option("--seed", help="Of the forecast's own random draws.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the forecast as JSON.")] = False,
    verbose: Verbose = False,
) -> None:
    """Say how many harmful answers to expect in N queries, and how likely at least one is.

    The forecast is saved as forecast.json in the run's folder; the report shows it. Exit with 4 above --fail-above.

    Example: tailrisk forecast runs/first-audit --queries 1e6
    """
    from tailrisk.cli.folder import summary_of
    from tailrisk.cli.remoterun import send_report, to_look_at
    from tailrisk.report.forecast import NAME, VERSION, digest_of, make_forecast
    from tailrisk.store.atomic import write_json_atomic
    from tailrisk.traffic import Traffic, read_traffic

    if not queries <= MOST_QUERIES:
        raise ConfigError(f"--queries: {queries} is not a number of queries up to {MOST_QUERIES:g}")
    mix = Traffic() if traffic is None else read_traffic(traffic)
    folder = to_look_at(run)
    summary = summary_of(folder)
    finished = summary["audit"].get("finished") is not False
    records = summary["estimates"]
    data = make_forecast(records, mix, queries, seed=seed, ends=joint_ends(folder, records))
    data |= {"version": VERSION, "seed": seed, "finished": finished, "estimates": digest_of(records)}
    upper = upper_end(data, model_based)
    above = fail_above is not None and upper > fail_above
    data["limit"] = (
        None
        if fail_above is None
        else {"above": fail_above, "upper": upper, "model_based": model_based, "exceeded": above}
    )
    write_json_atomic(folder / NAME, data)
    saved = send_report(run, folder / NAME)
    if as_json:
        typer.echo(json.dumps(data, allow_nan=False, indent=2))
    else:
        from rich.console import Console

        tell(data, wide(Console(highlight=False)), saved)
    if above:
        raise typer.Exit(OVER_LIMIT)


def upper_end(data: dict[str, Any], model_based: bool) -> float:
    """What is held against a limit; 1 where there is no model."""
    if not model_based:
        return data["certified"]["any"][1]
    return data["model"]["any"][2] if data["model"] else 1.0


def joint_ends(folder: Path, records: list[dict[str, Any]]) -> tuple[FloatArray, FloatArray]:
    """Certified ends of every prompt at the level at which all hold together, from the run's log; in the order of
    ``records``. ``StoreError``: the log is damaged."""
    import numpy as np

    from tailrisk.audit.estimates import estimate_all
    from tailrisk.audit.recovery import rebuild_folder
    from tailrisk.config import Config
    from tailrisk.errors import StoreError
    from tailrisk.records import Prompt
    from tailrisk.stats.forecast import prompt_confidence
    from tailrisk.store import read_manifest

    manifest = read_manifest(folder)
    config = Config.model_validate(manifest.config)
    level = prompt_confidence(config.stop.confidence, len(records))
    stop = config.stop.model_copy(update={"confidence": level})
    prompts = [
        Prompt(id=p["id"], messages=(), category=p["category"], group=p["group"]) for p in manifest.prompts
    ]
    state = rebuild_folder(config.model_copy(update={"stop": stop}), prompts, folder)
    if state is None:
        raise StoreError(f"{folder}: nothing has been drawn yet; run the audit first")
    by_id: dict[str, tuple[float, float]] = {}
    for e in estimate_all(state):
        by_id[e.prompt_id] = e.certified if e.corrected is None else tuple(e.corrected["certified"])
    pairs = [by_id.get(str(r["prompt_id"]), (0.0, 1.0)) for r in records]
    low, high = np.array(pairs, dtype=np.float64).reshape(-1, 2).T
    return low, high


def tell(data: dict[str, Any], console: Console, saved: str) -> None:
    """The forecast for a person."""
    from rich.table import Table

    from tailrisk.report.forecastview import view

    def say(text: str) -> None:
        console.print(text, markup=False, soft_wrap=True)

    seen = view(data)
    say(seen.headline)
    say(f"traffic: {data['traffic']['mix']}")
    table = Table(box=None, pad_edge=False)
    for name in ("", "certified", "model-based"):
        table.add_column(name)
    for line in seen.lines:
        table.add_row(*line)
    console.print(table)
    for text in (*seen.warnings, *seen.said):
        say(text)
    if data["finished"] is False:
        say("the run is not finished: these numbers rest on its complete rounds")
    if limit := data["limit"]:
        which = "model-based" if limit["model_based"] else "certified"
        verdict = "is above" if limit["exceeded"] else "is not above"
        say(f"the {which} upper end, {limit['upper']:.3g}, {verdict} the limit {limit['above']:g}")
    say(f"forecast:   {saved}")
