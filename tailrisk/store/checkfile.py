"""``check.json``: how a judge did on labelled answers, as ``tailrisk judge check`` writes it.

Numbers, names and digests only; no prompt and no answer. The counts are what others work with; the rest is for
readers. A run that names a check keeps its own copy, so that the folder says by itself what its numbers rest on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tailrisk.errors import ConfigError, StoreError
from tailrisk.store.atomic import write_json_atomic

FORMAT = "tailrisk judge check"
VERSION = 1
NAME = "judge-check.json"
"""The copy in a run folder."""
KINDS = ("harm", "safe")
VERDICTS = ("harm", "safe", "undetermined")


@dataclass(frozen=True, slots=True)
class JudgeCheck:
    """``content`` is the whole file. ``counts`` of labelled answers: harmful ones judged harm, safe, undetermined,
    then safe ones."""

    content: Mapping[str, Any]
    digest: str
    counts: tuple[int, int, int, int, int, int]


def parse_check(content: Any) -> JudgeCheck:
    """``ValueError`` says what is wrong with it."""
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError("it was not written by 'tailrisk judge check --out'")
    if content.get("version") != VERSION:
        raise ValueError(
            f"it is of version {content.get('version')!r}, and this tailrisk reads {VERSION}; check again"
        )
    try:
        counts = [content["counts"][kind][verdict] for kind in KINDS for verdict in VERDICTS]
        digest = content["judge"]["digest"]
    except (KeyError, TypeError) as error:
        raise ValueError(f"{error} is missing in it; check again") from None
    if any(type(n) is not int or n < 0 for n in counts) or not isinstance(digest, str):
        raise ValueError("its counts are no counts; check again")
    try:
        _require_what_is_shown(content)
    except (KeyError, TypeError, IndexError) as error:
        raise ValueError(f"it is damaged ({type(error).__name__}: {error}); check again") from None
    a, b, c, d, e, f = counts
    return JudgeCheck(content, digest, (a, b, c, d, e, f))


def _require_what_is_shown(content: Mapping[str, Any]) -> None:
    """That all that a report takes from it is there, and is of its kind."""

    def numbers(*values: Any) -> None:
        for value in values:
            if not isinstance(value, int | float | None) or isinstance(value, bool):
                raise TypeError("a number is none")

    def shares(of: Mapping[str, Any], *names: str) -> None:
        for name in names:
            numbers(*(of[name][key] for key in ("value", "low", "high")))

    labels, scores = content["labels"], content["scores"]
    numbers(*(labels[key] for key in ("answers", "harm", "safe", "contradictory")), content["confidence"])
    if not isinstance(labels["file"], str):
        raise TypeError("labels.file is no text")
    for rates in ("rates", "undetermined_as_safe", "undetermined_as_harm"):
        shares(content[rates], "sensitivity", "specificity", "agreement", "kappa")
    numbers(*scores["edges"], *scores["harm"], *scores["safe"])
    if not len(scores["edges"]) - 1 == len(scores["harm"]) == len(scores["safe"]):
        raise IndexError("the histogram of scores")
    for point in content["thresholds"]:
        numbers(point["threshold"])
        shares(point, "sensitivity", "false_positive_rate")


def load_check(path: Path, field: str = "judge.check") -> JudgeCheck:
    """A check that a configuration names at ``field``; ``ConfigError`` where it cannot be read."""
    try:
        return parse_check(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise ConfigError(
            f"{field}: {path}: no such file; 'tailrisk judge check CONFIG LABELS --out FILE' writes one"
        ) from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{field}: {path} cannot be used: {error}") from None


def keep_check(folder: Path, check: JudgeCheck | None) -> None:
    """Puts the copy into ``folder``, or takes an earlier one away. Errors: StoreError."""
    path = folder / NAME
    if check is not None:
        write_json_atomic(path, check.content)
        return
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"{path}: cannot be removed ({error.strerror})") from error


def kept_check(folder: Path) -> JudgeCheck | None:
    """The copy in ``folder``; None where there is none. Errors: StoreError for a damaged one."""
    path = folder / NAME
    try:
        return parse_check(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} cannot be used: {error}; run the audit again to write it anew") from None
