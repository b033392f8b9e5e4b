"""``tailrisk rejudge``: another judge over the draws of a run; no model is loaded and nothing is drawn."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from tailrisk.cli import guard
from tailrisk.cli.audit import Overrides, wide
from tailrisk.cli.guard import Verbose, guarded
from tailrisk.cli.show import RunPath
from tailrisk.errors import ConfigError, TailriskError

if TYPE_CHECKING:
    from rich.console import Console

    from tailrisk.audit.protocols import JudgeWorkers
    from tailrisk.config import Config
    from tailrisk.judgefile import LoneJudge
    from tailrisk.records import Prompt
    from tailrisk.report.tables import Row
    from tailrisk.store import Manifest

OWN = "audit"
"""Stands for the run's own judge."""


class Ended(NamedTuple):
    """``estimates`` is a file on this machine, ``paths`` are what to tell the user; ``unsent``: why what was added
    could not be sent to the run's address."""

    name: str
    rows: list[Row]
    batches: int
    kept: int
    estimates: Path
    paths: dict[str, str]
    unsent: str = ""


@guarded
def rejudge(
    run: RunPath,
    judge: Annotated[
        Path | None,
        typer.Option(
            "--judge",
            metavar="FILE",
            help="A YAML file with the key judge, or an audit's; without it the run's own judge, changed by --set.",
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option("--name", help="What to call this judge in the run; default: its kind."),
    ] = None,
    overrides: Overrides = None,
    prompts: Annotated[
        Path | None,
        typer.Option("--prompts", metavar="FILE", help="The run's prompts, where they are no longer found."),
    ] = None,
    in_process: Annotated[
        bool, typer.Option("--in-process", help="Judge in this process, without Ray.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print totals and estimates as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show nothing but errors.")] = False,
    verbose: Verbose = False,
) -> None:
    """Have another judge read every answer of a run; both judgements are kept, and the report shows both.

    Example: tailrisk rejudge runs/first-audit --judge stricter.yaml --name stricter
    """
    from rich.console import Console

    guard.state.resume = shlex.join(["tailrisk", *sys.argv[1:]])
    console = wide(Console(stderr=True, quiet=quiet, highlight=False))
    if judge is None and not overrides:
        raise ConfigError(
            "name another judge: --judge FILE, or changes of the run's own (--set judge.threshold=0.7)"
        )
    ended = conduct(run, judge, name, tuple(overrides or ()), prompts, console, in_process=in_process)
    from tailrisk.report import terminal

    console.print(terminal.table(ended.rows, width=console.width))
    again = f", {ended.kept:,} were judged before" if ended.kept else ""
    console.print(f"judge {ended.name}: {ended.batches:,} batches judged{again}", markup=False)
    for what, place in ended.paths.items():
        console.print(f"{what + ':':12}{place}", markup=False, soft_wrap=True)
    if as_json:
        typer.echo(json.dumps(json.loads(ended.estimates.read_text(encoding="utf-8")), allow_nan=False))
    if ended.unsent:
        guard.say(
            f"error: not everything is at {run}: {ended.unsent}. Run the same command again to send the rest"
        )
        raise typer.Exit(1)


def conduct(
    run: str,
    judge: Path | None,
    name: str | None,
    overrides: Sequence[str],
    prompts: Path | None,
    console: Console,
    *,
    in_process: bool,
) -> Ended:
    """All of it: what can be refused is refused before a worker starts."""
    from tailrisk.cli.remoterun import to_add_to

    def warn(line: str) -> None:
        console.print(f"warning: {line}", markup=False, soft_wrap=True)

    def say(line: str) -> None:
        console.print(line, style="dim", markup=False, soft_wrap=True)

    with to_add_to(run, warn, say) as (folder, mirror):
        ended = _conduct(folder, mirror, judge, name, overrides, prompts, say, in_process=in_process)
    if mirror is None:
        return ended
    there = {
        what: f"{mirror.address}/{Path(place).relative_to(folder)}" for what, place in ended.paths.items()
    }
    return ended._replace(paths=there, unsent=mirror.trouble)


def _conduct(
    folder: Path,
    mirror: Any,
    judge: Path | None,
    name: str | None,
    overrides: Sequence[str],
    prompts: Path | None,
    say: Any,
    *,
    in_process: bool,
) -> Ended:
    from tailrisk.audit.rejudging import home, rejudge, write_judged
    from tailrisk.cli.folder import summary_of
    from tailrisk.cli.namedcheck import check_of
    from tailrisk.config import Config
    from tailrisk.judgeconfig import judge_identity
    from tailrisk.judges import check_judge
    from tailrisk.judges.identity import judge_digest
    from tailrisk.report import render_report, tables
    from tailrisk.store import OtherJudge, RunStore, read_manifest
    from tailrisk.store.checkfile import keep_check
    from tailrisk.store.manifest import as_now

    manifest = read_manifest(folder)
    config = Config.model_validate(manifest.config)
    base = config_folder(folder, config)
    lone = _judge(judge, overrides, config, base)
    check_judge(lone.spec, lone.base, lone.cluster)
    check = check_of(lone.spec, lone.base)
    other = OtherJudge(
        name=checked_name(name or lone.spec.kind),
        digest=judge_digest(lone.spec, lone.base),
        settings=judge_identity(lone.spec.model_dump(mode="json")),
    )
    texts = find_prompts(manifest, config, prompts, [base, Path.cwd(), lone.base])
    theirs = config.model_copy(update={"judge": lone.spec, "cluster": lone.cluster}).at(lone.base)
    with RunStore.open(folder, as_now(manifest)) as store:
        if mirror is not None:
            store.guard = mirror.check
        say(f"judging the answers of {folder} as {other.name}")
        with judge_workers(theirs, texts, in_process) as workers:
            found = rejudge(store, other, workers)
        place = home(folder, other.name)
        place.mkdir(parents=True, exist_ok=True)
        keep_check(place, check)
        estimates, _ = write_judged(config, texts, folder, other)
        report = render_report(folder, summary=summary_of(folder))
    rows = tables.rows(estimate.to_json() for estimate in estimates)
    paths = {"estimates": str(place / "estimates.json"), "report": str(report)}
    return Ended(other.name, rows, found.batches, found.kept, place / "estimates.json", paths)


def _judge(file: Path | None, overrides: Sequence[str], config: Config, base: Path) -> LoneJudge:
    from tailrisk.judgeconfig import judge_identity
    from tailrisk.judgefile import changed_judge, load_judge

    cluster = config.cluster.model_dump(mode="json")
    if file is not None:
        return load_judge(file, overrides, cluster)
    # A check of the run's own judge is none of a changed one.
    own = judge_identity(config.judge.model_dump(mode="json"))
    return changed_judge(own, cluster, overrides, base)


def checked_name(name: str) -> str:
    """Errors: ConfigError where it cannot be that of a folder, or stands for the run's own judge."""
    from pydantic import TypeAdapter, ValidationError

    from tailrisk.proposalconfig import Name

    try:
        TypeAdapter(Name).validate_python(name)
    except ValidationError:
        raise ConfigError(f"--name {name[:40]!a}: use letters, digits, '.', '_' and '-'") from None
    if name == OWN:
        raise ConfigError(f"--name {name}: that is the run's own judge; give this one another name")
    return name


def config_folder(folder: Path, config: Config) -> Path:
    """The folder of the configuration that a run was begun from, as far as its place says so; else the current one."""
    parts = Path(config.run.dir).parts
    real = folder.resolve()
    if config.run.remote or Path(config.run.dir).is_absolute() or ".." in parts or "~" in parts:
        return Path.cwd()
    here = [*(part for part in parts if part != "."), config.run.name]
    return real.parents[len(here) - 1] if real.parts[-len(here) :] == tuple(here) else Path.cwd()


def find_prompts(
    manifest: Manifest, config: Config, given: Path | None, folders: Sequence[Path]
) -> list[Prompt]:
    """The run's prompts with their texts, which a run folder does not hold; by their digest, no others.

    Errors: ConfigError where they are not found, or are not those of the run; InputError for a file with bad rows.
    """
    from tailrisk.prompts import prompts_digest, read_prompts

    def those(prompts: list[Prompt]) -> bool:
        return prompts_digest(prompts) == manifest.identity["prompts"]["digest"]

    if given is not None:
        prompts = read_prompts(given, config.prompts, "--prompts")
        if not those(prompts):
            raise ConfigError(f"--prompts: {given}: these are not the prompts of the run")
        return prompts
    tried = list(dict.fromkeys((folder / config.prompts.path).resolve() for folder in folders))
    for path in tried:
        try:
            prompts = read_prompts(path, config.prompts)
        except TailriskError:
            continue
        if those(prompts):
            return prompts
    raise ConfigError(
        f"the texts of the prompts of the run are needed, and are not at {' or '.join(map(str, tried))}; "
        "say where they are (--prompts FILE)"
    )


@contextmanager
def judge_workers(config: Config, prompts: Sequence[Prompt], in_process: bool) -> Iterator[JudgeWorkers]:
    """In this process, or on Ray as ``config.cluster`` says."""
    if in_process:
        from tailrisk.audit.local import LocalJudges
        from tailrisk.judges import build_judge

        yield LocalJudges(build_judge(config), prompts)
        return
    from tailrisk.cluster import RayJudges, ray_session

    with ray_session(config.cluster), RayJudges(config, prompts) as workers:
        yield workers
