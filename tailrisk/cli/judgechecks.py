"""The lines of ``tailrisk doctor`` that are about the judge of a configuration."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tailrisk.cli.checks import Check

if TYPE_CHECKING:
    from tailrisk.config import EndpointJudge

LIMIT_S = 10.0


def judge_checks(path: Path | None) -> Iterator[Check]:
    """One line for each endpoint among the judges of the configuration, the strong judge's too.

    Raises ConfigError where the configuration itself is wrong.
    """
    if path is None:
        return
    from tailrisk.config import EndpointJudge
    from tailrisk.configfile import load_config

    for field, spec in load_config(path).judges:
        if isinstance(spec, EndpointJudge):
            yield reached(spec, field)


def reached(spec: EndpointJudge, field: str) -> Check:
    """Asks for the list of models, which costs no tokens. ``field``: where the judge is in the configuration."""
    from tailrisk.errors import ConfigError
    from tailrisk.judges.endpoint import key_of
    from tailrisk.judges.reach import models_at

    try:
        found = models_at(spec.url, key_of(spec), LIMIT_S)
    except ConfigError as error:
        seen, _, fix = str(error).partition("; ")
        return Check(field, "missing", seen, fix)
    if found.status in (401, 403):
        fix = (
            f"export {spec.key_env}=..."
            if spec.key_env
            else f"set {field}.key_env to the NAME of a variable with the key"
        )
        return Check(field, "missing", f"{spec.url} refuses access (HTTP {found.status})", fix)
    if found.trouble:
        fix = f"start the server, or correct {field}.url"
        return Check(field, "missing", f"{spec.url} cannot be reached: {found.trouble}", fix)
    if found.status != 200:
        seen = f"{spec.url} answers, but lists no models (HTTP {found.status})"
        return Check(field, "note", seen)
    if found.models and spec.model not in found.models:
        some = ", ".join(found.models[:5])
        return Check(
            field,
            "missing",
            f"{spec.url} has no model {spec.model!r}",
            f"set {field}.model to one of: {some}",
        )
    return Check(field, "ok", f"{spec.url} answers in {found.seconds:.2f} s, model {spec.model}")
