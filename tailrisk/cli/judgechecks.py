"""The lines of ``tailrisk doctor`` that are about the judge of a configuration."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tailrisk.cli.checks import Check

if TYPE_CHECKING:
    from tailrisk.config import EndpointJudge
    from tailrisk.judgeconfig import JudgeSection

LIMIT_S = 10.0


def judge_checks(path: Path | None) -> Iterator[Check]:
    """One line for each endpoint among the judges of the configuration.

    Raises ConfigError where the configuration itself is wrong.
    """
    if path is None:
        return
    from tailrisk.configfile import load_config

    for spec in endpoints(load_config(path).judge):
        yield reached(spec)


def endpoints(judge: JudgeSection) -> Iterator[EndpointJudge]:
    """The endpoints that a judge is, or is made of."""
    from tailrisk.config import EndpointJudge

    if isinstance(judge, EndpointJudge):
        yield judge
    for part in judge.parts:
        yield from endpoints(part)


def reached(spec: EndpointJudge) -> Check:
    """Asks for the list of models, which costs no tokens."""
    from tailrisk.errors import ConfigError
    from tailrisk.judges.endpoint import key_of
    from tailrisk.judges.reach import models_at

    try:
        found = models_at(spec.url, key_of(spec), LIMIT_S)
    except ConfigError as error:
        seen, _, fix = str(error).partition("; ")
        return Check("judge", "missing", seen, fix)
    if found.status in (401, 403):
        fix = (
            f"export {spec.key_env}=..."
            if spec.key_env
            else "set judge.key_env to the NAME of a variable with the key"
        )
        return Check("judge", "missing", f"{spec.url} refuses access (HTTP {found.status})", fix)
    if found.trouble:
        fix = "start the server, or correct judge.url"
        return Check("judge", "missing", f"{spec.url} cannot be reached: {found.trouble}", fix)
    if found.status != 200:
        seen = f"{spec.url} answers, but lists no models (HTTP {found.status})"
        return Check("judge", "note", seen)
    if found.models and spec.model not in found.models:
        some = ", ".join(found.models[:5])
        return Check(
            "judge",
            "missing",
            f"{spec.url} has no model {spec.model!r}",
            f"set judge.model to one of: {some}",
        )
    return Check("judge", "ok", f"{spec.url} answers in {found.seconds:.2f} s, model {spec.model}")
