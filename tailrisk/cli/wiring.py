"""From a configuration file to a finished run folder: every room in its place, opened and closed in order.

What can be refused is refused first, before weights are loaded or anything is written: the configuration,
the prompts, the budget, the judge, then models and adapters by their headers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tailrisk.audit.protocols import Silent
from tailrisk.cli import guard
from tailrisk.cli.clusterview import exposure, watch_cluster
from tailrisk.cli.progress import Lines, Live
from tailrisk.cli.remoterun import Sender, check_run_dir, open_mirror
from tailrisk.cli.runlog import LogObserver, run_log, waiting_told
from tailrisk.cli.source import source_state
from tailrisk.events import event
from tailrisk.report import tables

if TYPE_CHECKING:
    from rich.console import Console

    from tailrisk.audit.outcome import AuditOutcome
    from tailrisk.audit.protocols import Executor, LawCard, Observer
    from tailrisk.config import Config
    from tailrisk.records import Prompt
    from tailrisk.report.tables import Row
    from tailrisk.tracking import Tracker


@dataclass(frozen=True)
class Checked:
    """A configuration that passed every check; ``hashes`` are content digests for the run's identity."""

    config: Config
    prompts: Sequence[Prompt]
    hashes: Mapping[str, str]


@dataclass(frozen=True)
class Finished:
    """An audit's end: ``paths`` are what to tell the user, by name, in order."""

    config: Config
    outcome: AuditOutcome
    rows: list[Row]
    paths: dict[str, str]
    unsent: str = ""
    """Why the results could not be sent to the run's address; they are complete on this machine."""


Workers = Callable[[Checked], AbstractContextManager[tuple["Executor", "LawCard"]]]


def execute(
    path: Path, overrides: Sequence[str], console: Console, *, live: bool, workers: Workers | None = None
) -> Finished:
    """Run or resume the audit that ``path`` describes. ``workers`` opens the executor (default: on Ray)."""
    from tailrisk.cli.learnedfirst import learned_first

    opened = workers or on_ray
    checked = check(
        path,
        overrides,
        say=lambda text: console.print(text, style="dim", markup=False),
        prepared=lambda config, prompts: learned_first(config, prompts, console, live=live, workers=opened),
    )
    return conduct(checked, console, live=live, workers=opened)


def check(
    path: Path,
    overrides: Sequence[str],
    *,
    say: Callable[[str], None] = lambda text: None,
    prepared: Callable[[Config, Sequence[Prompt]], Config] = lambda config, prompts: config,
) -> Checked:
    """Everything that can be found wrong without loading weights.

    ``prepared``: makes what is still to be made of the proposals, once the rest has passed.

    Raises:
        ConfigError, InputError, ModelError, JudgeError: what is wrong, where, and what to do.
    """
    from tailrisk.cli.namedcheck import named_check
    from tailrisk.configfile import check_budget, load_config
    from tailrisk.judges import preflight as check_judge
    from tailrisk.prompts import load_prompts
    from tailrisk.tracking import check_uri, fetch_adapters

    config = load_config(path, tuple(overrides))
    prompts = load_prompts(config)
    check_budget(config, len(prompts))
    judged = check_judge(config)
    named_check(config)
    check_uri(config)
    check_run_dir(config)
    config = prepared(fetch_adapters(config), prompts)
    say(f"checking model, adapters and {len(prompts)} prompts")
    return Checked(config, prompts, {**check_models(config, prompts), **judged})


def check_models(config: Config, prompts: Sequence[Prompt]) -> dict[str, str]:
    """Refuses models, adapters and prompts that do not fit each other; returns content digests for the run's
    identity: what the configuration's names and paths led to."""
    from tailrisk.models.preflight import check

    found = check(config, prompts)
    rendered = hashlib.sha256("\n".join(f"{k} {v}" for k, v in sorted(found.prompts.items())).encode())
    return {
        **{f"model.{name}": value for name, value in found.models.items()},
        **{f"adapter.{name}": value for name, value in found.adapters.items()},
        **{f"direction.{name}": value for name, value in found.directions.items()},
        "chat_template": found.template,
        "rendered_prompts": rendered.hexdigest(),
        "stop_ids": ",".join(map(str, found.stop_ids)),
    }


class Reporter(Silent):
    """Writes the report before the tracker, which comes after it, collects the results."""

    path: Path | None = None

    def finished(self, outcome: AuditOutcome) -> None:
        from tailrisk.report import render_report

        self.path = render_report(outcome.folder)


def conduct(checked: Checked, console: Console, *, live: bool, workers: Workers) -> Finished:
    """Open the run folder and the workers, drive the audit to its end, write the report, close everything."""
    from tailrisk.audit.driver import run_audit
    from tailrisk.cli.namedcheck import named_check
    from tailrisk.report import render_report
    from tailrisk.store import RunStore, make_manifest
    from tailrisk.store.checkfile import keep_check
    from tailrisk.tracking import open_tracker

    config, folder = checked.config, checked.config.run_folder
    manifest = make_manifest(config, checked.prompts, checked.hashes)
    place = config.run.address or str(folder)

    def warn(line: str, kind: str = "tracking") -> None:
        event(kind, warning=line)
        console.print(f"warning: {line}", markup=False, soft_wrap=True)

    def say(line: str) -> None:
        console.print(line, style="dim", markup=False, soft_wrap=True)

    with ExitStack() as stack:
        mirror = stack.enter_context(open_mirror(config, lambda line: warn(line, "store"), say))
        store = stack.enter_context(RunStore.open(folder, manifest))
        stack.enter_context(run_log(folder))
        keep_check(folder, named_check(config))
        event("opened", folder=place, resumed=store.resumed, rounds=len(store.plans))
        event("command", line=guard.state.resume or "", source=source_state())
        further: list[Observer] = []
        if mirror is not None:
            store.guard = mirror.check
            store.notes[:0] = mirror.notes
            further.append(Sender(mirror))
            mirror.send()
        for note in store.notes:
            event("note", text=note)
            console.print(f"note: {note}", markup=False)
        verb = "resuming" if store.resumed else "starting"
        say(f"{verb} {place}; loading the model")
        tracker = stack.enter_context(open_tracker(config, folder, warn=warn))
        if store.resumed and config.tracking.uri is not None:
            _tell_again(checked, folder, tracker)
        stack.enter_context(waiting_told(console))
        executor, laws = stack.enter_context(workers(checked))
        if line := exposure(executor, config):
            warn(line, "safety")
        shown = Live(console, config.budget.draws) if live else Lines(console, config.budget.draws)
        if isinstance(shown, Live):
            stack.enter_context(shown)
        reporter = Reporter()
        further[:0] = watch_cluster(executor, shown, config.run.name)
        observers = [LogObserver(), shown, reporter, tracker, *further]
        outcome = run_audit(config, checked.prompts, laws, executor, store, observers=observers)
        # An observer's error is only logged; writing the page again shows it.
        report = reporter.path or render_report(folder)
    listed = tables.rows(estimate.to_json() for estimate in outcome.estimates)
    unsent = "" if mirror is None else mirror.trouble
    return Finished(config, outcome, listed, _paths(config, folder, report), unsent)


def _tell_again(checked: Checked, folder: Path, tracker: Tracker) -> None:
    """All rounds that are finished: a tracking server that could not take them then may now."""
    from tailrisk.audit.estimates import estimate_all
    from tailrisk.audit.recovery import finished_rounds, logged_laws
    from tailrisk.store import replay

    if (laws := logged_laws(replay(folder))) is not None:
        for state in finished_rounds(checked.config, checked.prompts, laws, replay(folder)):
            tracker.round_finished(state, estimate_all(state))


@contextmanager
def on_ray(checked: Checked) -> Iterator[tuple[Executor, LawCard]]:
    """Model and judge workers on Ray, as ``config.cluster`` says."""
    from tailrisk.cluster import RayExecutor, ray_session

    config = checked.config
    with ray_session(config.cluster), RayExecutor(config, checked.prompts) as executor:
        yield executor, executor.card


def _paths(config: Config, folder: Path, report: Path) -> dict[str, str]:
    from tailrisk.tracking import resolve_uri
    from tailrisk.tracking.uri import database, masked

    paths = {"report": str(report), "run folder": config.run.address or str(folder)}
    uri = resolve_uri(config)
    if uri is not None:
        paths["mlflow"] = str(database(uri) or masked(uri))
    return paths
