"""``tailrisk submit``: an audit as a job on a Ray cluster that runs somewhere else, followed to its end."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tailrisk.cli.audit import SHORT, Overrides
from tailrisk.cli.guard import Verbose, guarded, say
from tailrisk.cli.limit import OVER_LIMIT, limit_option

if TYPE_CHECKING:
    from tailrisk.cluster.submission import End, JobServer

_COMPLETE = {0, SHORT, OVER_LIMIT}
_OF_AN_AUDIT = _COMPLETE | {1, 2, 130}
_NO_COMMAND = 127


@guarded
def submit(
    address: Annotated[
        str,
        typer.Option(
            "--address",
            metavar="URL",
            envvar="RAY_API_SERVER_ADDRESS",
            help="The cluster's job server (Ray's dashboard): http://HOST:8265.",
            show_default=False,
        ),
    ],
    config_path: Annotated[
        Path | None, typer.Argument(metavar="[CONFIG]", help="The audit's YAML file.", show_default=False)
    ] = None,
    overrides: Overrides = None,
    fail_above: Annotated[
        float | None,
        limit_option("As for tailrisk audit."),
    ] = None,
    submission_id: Annotated[
        str | None,
        typer.Option("--submission-id", metavar="ID", help="The job's id, used once; Ray makes one up."),
    ] = None,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Leave when the job is accepted.")] = False,
    follow: Annotated[
        str | None, typer.Option("--follow", metavar="ID", help="Follow a job that was submitted before.")
    ] = None,
    stop: Annotated[str | None, typer.Option("--stop", metavar="ID", help="Stop a job.")] = None,
    verbose: Verbose = False,
) -> None:
    """Run an audit as a job on a Ray cluster, and follow it; submitting it again resumes its run.

    The configuration and the files that it names by relative paths are sent. run.dir must be an absolute path
    on storage that outlives the job, or an address such as s3://BUCKET/runs. tailrisk must be installed on the cluster.

    Exit status: that of the audit; 1 also where the job failed, was stopped or was not accepted.

    Example: tailrisk submit audit.yaml --address http://127.0.0.1:8265 --set run.dir=/shared/runs
    """
    from tailrisk.cli.remote import check_address, check_submission_id
    from tailrisk.errors import ConfigError

    address = check_address(address)
    for name in (submission_id, follow, stop):
        if name is not None:
            check_submission_id(name)
    if sum(given is not None for given in (config_path, follow, stop)) != 1:
        raise ConfigError("give one of CONFIG (submit it), --follow ID and --stop ID")
    if config_path is not None:
        _submit(config_path, overrides or [], address, submission_id, fail_above, no_wait)
    elif overrides or submission_id is not None or fail_above is not None or no_wait:
        raise ConfigError("--set, --submission-id, --fail-above and --no-wait go with a CONFIG")
    elif follow is not None:
        _follow(_server(address), follow, None)
    elif stop is not None:
        _stop(_server(address), stop)


def _submit(
    path: Path,
    overrides: list[str],
    address: str,
    submission_id: str | None,
    fail_above: float | None,
    no_wait: bool,
) -> None:
    from tailrisk.cli.packing import pack
    from tailrisk.cli.remote import check_remote

    remote = check_remote(path, overrides)
    package = pack(remote.config, path.name)
    entrypoint = entry_words(package.config, fail_above)
    say(f"sending {package.files} files, {package.bytes:,} bytes")
    for name in remote.expected:
        say(f"not sent, expected on the cluster: {name}")
    say(f"the same by hand:\n  {plain_line(address, package.folder, entrypoint, submission_id, no_wait)}")
    server = _server(address)
    if line := _exposure(address):
        say(f"warning: {line}")
    made = server.submit(shlex.join(entrypoint), package.folder, submission_id)
    typer.echo(made)
    folder = remote.config.run.address or str(remote.config.run_folder)
    if no_wait:
        where = "" if remote.config.run.remote else ", as the cluster sees it"
        say(f"results will be in {folder}{where}\n{_hints(server, made)}")
        return
    _follow(server, made, folder)


def entry_words(config: str, fail_above: float | None) -> list[str]:
    """The command that runs in the job's working directory."""
    limit = [] if fail_above is None else ["--fail-above", repr(fail_above)]
    return ["tailrisk", "audit", config, *limit]


def plain_line(
    address: str, folder: Path, entrypoint: list[str], submission_id: str | None, no_wait: bool
) -> str:
    """Ray's own command for the same job. What would outrank its --address is unset for it."""
    unset = [name for name in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS") if os.environ.get(name)]
    words = ["env", *(word for name in unset for word in ("-u", name))] if unset else []
    words += ["ray", "job", "submit", "--address", address, "--working-dir", str(folder)]
    words += ["--submission-id", submission_id] if submission_id else []
    words += ["--no-wait"] if no_wait else []
    return shlex.join([*words, "--", *entrypoint])


def _server(address: str) -> JobServer:
    from tailrisk.cluster.submission import JobServer

    return JobServer(address)


def _exposure(address: str) -> str:
    from tailrisk.cluster.exposure import of_job_server

    return of_job_server(address)


def _hints(server: JobServer, submission_id: str) -> str:
    words = ["--address", server.address]
    return (
        f"follow it:  {shlex.join(['tailrisk', 'submit', '--follow', submission_id, *words])}\n"
        f"stop it:    {shlex.join(['tailrisk', 'submit', '--stop', submission_id, *words])}"
    )


def _follow(server: JobServer, submission_id: str, folder: str | None) -> None:
    """Print what the job prints; the end is an exit status. Ctrl-C ends the following, not the job."""

    def write(text: str) -> None:
        typer.echo(text, nl=False)

    try:
        end = server.follow(submission_id, write)
    except KeyboardInterrupt:
        say(f"\nthe job {submission_id} goes on without being followed.\n{_hints(server, submission_id)}")
        raise typer.Exit(130) from None
    code = conclude(submission_id, end)
    if folder is not None and code in _COMPLETE:
        from tailrisk.runconfig import is_address

        remote = is_address(folder)
        say(f"results: {folder}" + ("" if remote else ", as the cluster sees it"))
        if remote or Path(folder).is_dir():
            say(f"they can be seen from here: tailrisk show {shlex.quote(folder)}")
    raise typer.Exit(code)


def conclude(submission_id: str, end: End) -> int:
    """The exit status of a job that has ended, with a word on what it means.

    Raises:
        ClusterError: it was stopped, never ran, or ended as no audit ends.
    """
    from tailrisk.errors import ClusterError

    job = f"the job {submission_id}"
    if end.status == "STOPPED":
        raise ClusterError(f"{job} was stopped; what is drawn is kept: submit the audit again to resume it")
    if end.exit_code == _NO_COMMAND:
        raise ClusterError(
            f"{job}: there is no command tailrisk on the cluster; install it in the image of its nodes, or in the "
            "environment in which Ray was started"
        )
    if end.exit_code is None or end.exit_code not in _OF_AN_AUDIT:
        code = "" if end.exit_code is None else f" with exit code {end.exit_code}"
        first = (end.message.strip().splitlines() or ["no reason given"])[0]
        raise ClusterError(
            f"{job} failed{code} ({first[:300]}); what is drawn is kept: submit the audit again to resume it"
        )
    meaning = {
        0: "is done",
        1: "ended with an error, shown above",
        2: "was refused on the cluster, for the reason shown above",
        SHORT: "is complete; some prompts are not settled: their status says why",
        OVER_LIMIT: "is complete; some prompt's interval reaches above the limit",
        130: "was interrupted",
    }
    say(f"the audit of {job.removeprefix('the ')} {meaning[end.exit_code]} (exit code {end.exit_code})")
    return end.exit_code


def _stop(server: JobServer, submission_id: str) -> None:
    running, status = server.stop(submission_id)
    if running and status == "STOPPED":
        say(f"the job {submission_id} is stopped; submitting its audit again resumes the run")
    else:
        say(f"the job {submission_id} has ended by itself ({status})")
