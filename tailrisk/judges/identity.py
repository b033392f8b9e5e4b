"""Whether two judges are the same: a digest of a judge's settings and of the files that they name.

A judge's verdicts depend on nothing else that we know of. What a ``python`` judge reads as data is not seen, nor what
the installed packages hold. ``check``, which says how good the judge is, is no part of what it is; nor is the folder
that its files are in.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path, PurePath
from typing import Any

from pydantic import BaseModel

from tailrisk.clusterconfig import Parallel
from tailrisk.judgeconfig import JudgeConfig, LinearJudge, PythonJudge, judge_identity
from tailrisk.judges import CHECKS
from tailrisk.judges.sources import judge_sources


def judge_digest(spec: JudgeConfig, base: Path) -> str:
    """SHA-256 of the settings, and of the files of every judge in them: the sources of a ``python`` judge, relative to
    ``base`` (one that is not there has no part in it; building the judge refuses it), the weights of a trained one.

    Errors: ConfigError, ModelError, where weights cannot be read.
    """
    text = json.dumps(judge_identity(_known(spec, base)), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _known(value: Any, base: Path) -> Any:
    """Settings as plain values, with the files of a ``python`` judge in the place of their path."""
    if isinstance(value, BaseModel):
        known = {name: _known(getattr(value, name), base) for name in type(value).model_fields}
        if isinstance(value, PythonJudge):
            where, _, name = value.function.rpartition(":")
            known["function"] = f"{PurePath(where).name}:{name}"
            known["files"] = _files(value, base)
        elif (check := CHECKS.get(known.get("kind", ""))) is not None:
            known["files"] = check(value, base, Parallel(), True)
        if isinstance(value, LinearJudge):
            known["weights"] = PurePath(value.weights).name
        return known
    if isinstance(value, list | tuple):
        return [_known(part, base) for part in value]
    if isinstance(value, dict):
        return {str(key): _known(part, base) for key, part in value.items()}
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)


def _files(spec: PythonJudge, base: Path) -> dict[str, str]:
    folder, files = judge_sources(spec, base)
    return {
        file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in files
        if file.is_file()
    }
