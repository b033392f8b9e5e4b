"""What can be found wrong, before anything is sent, with an audit that is to run as a job on a cluster."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tailrisk.cli.jobfiles import Named, named_paths
from tailrisk.config import Config, ModelJudge
from tailrisk.errors import ConfigError, TailriskError


class Remote(NamedTuple):
    """A configuration that passed; ``expected``: what it names that is not sent and must be on the cluster."""

    config: Config
    expected: list[str]


def check_remote(path: Path, overrides: Sequence[str]) -> Remote:
    """The checks of ``tailrisk audit`` that need no model, as far as the files are on this machine, and those of a
    run that must outlive its job.

    Raises:
        ConfigError, InputError, JudgeError: what is wrong, where, and what to do.
    """
    from tailrisk.cli.packing import on_cluster
    from tailrisk.configfile import check_budget, load_config
    from tailrisk.judges import preflight as check_judge
    from tailrisk.prompts import load_prompts
    from tailrisk.tracking import check_uri

    config = load_config(path, tuple(overrides))
    named = list(named_paths(config))
    if problems := [*_storage(config), *_tracking(config), *_homes(named)]:
        raise ConfigError("\n".join(problems))
    absent = {n.field for n in named if n.elsewhere and not Path(n.text).exists()}
    if "prompts.path" not in absent:
        check_budget(config, len(load_prompts(config)))
    # Of a judge that is a model, as of the target, the names alone are looked at here.
    elsewhere = [
        at
        for at, judge in config.judges
        if judge.has_model or not absent.isdisjoint({f"{at}.function", f"{at}.weights"})
    ]
    check_judge(on_cluster(config), elsewhere)
    check_uri(config)
    _check_models(config, absent)
    return Remote(config, [f"{n.field} {n.text}" for n in named if n.elsewhere])


def _storage(config: Config) -> Iterator[str]:
    folder = config.run.dir
    if config.run.remote or Path(folder).is_absolute():
        return
    yield (
        f"run.dir: {folder!r}: a job's working directory goes away with the job, and the run with it; give an address "
        "on object storage (--set run.dir=s3://BUCKET/runs), or the absolute path of a folder on storage that outlives "
        "the job and that the cluster's head sees (--set run.dir=/shared/runs)"
    )


def _tracking(config: Config) -> Iterator[str]:
    from tailrisk.tracking.uri import masked

    uri = config.tracking.uri
    if uri is None:
        return
    path = uri.partition(":///")[2]
    default = "" if "uri" in config.tracking.model_fields_set else " (the default)"
    if uri.startswith("sqlite") and path and not Path(path).is_absolute():
        yield (
            f"tracking.uri: {uri!r}{default}: the file would go away with the job's working directory; name a server "
            "(--set tracking.uri=http://HOST:5000), an absolute path on shared storage "
            "(sqlite:////shared/mlflow.db), or no tracking (--set tracking.uri=null)"
        )
    if masked(uri) != uri:
        yield (
            f"tracking.uri: {masked(uri)!r}: the password would be kept on the cluster with the job's files; leave "
            "it out, and set it in the environment of the cluster (MLFLOW_TRACKING_PASSWORD, PGPASSWORD)"
        )


def _homes(named: Sequence[Named]) -> Iterator[str]:
    for one in named:
        if not (one.relative or one.elsewhere):
            yield (
                f"{one.field}: {one.text!r}: '~' is another folder on the cluster; give a path relative to the "
                "configuration, whose file is sent, or the absolute path that it has on the cluster"
            )


def _check_models(config: Config, absent: set[str]) -> None:
    """Names that are neither a folder here nor a hub id, and folders without a model."""
    from tailrisk.models.loading import resolve_model
    from tailrisk.proposalconfig import CheckpointProposal

    names = {"target.model": config.target.model}
    for number, proposal in enumerate(config.proposals):
        if isinstance(proposal, CheckpointProposal):
            names[f"proposals.{number}.model"] = proposal.model
    for place, judge in config.judges:
        if isinstance(judge, ModelJudge):
            names[f"{place}.model"] = judge.model
    for field, name in names.items():
        if field not in absent:
            try:
                resolve_model(name, config.base)
            except TailriskError as error:
                raise type(error)(f"{field}: {error}") from None


_SUBMISSION_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def check_address(address: str) -> str:
    """The address of a job server, as it is to be used. Errors: ConfigError."""
    if re.fullmatch(r"https?://[^/\s@]+(/\S*)?", address):
        return address.rstrip("/")
    hint = f"; did you mean http://{address}?" if re.fullmatch(r"[\w.-]+:[0-9]+", address) else ""
    raise ConfigError(
        f"--address {address!r}: give the address of Ray's dashboard, such as http://127.0.0.1:8265{hint}"
    )


def check_submission_id(text: str) -> str:
    """Errors: ConfigError for what cannot stand in an address and a file name."""
    if _SUBMISSION_ID.fullmatch(text):
        return text
    raise ConfigError(
        f"submission id {text!r}: give 1 to 128 of the characters A-Z a-z 0-9 . _ -, a letter or digit first"
    )
