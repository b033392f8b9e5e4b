"""Answers that people have labelled: jsonl, csv or parquet in; (prompt, response, harm or safe) out.

Columns are found by name without regard to case, or named by the caller. A label is a word (harm, safe and their
usual synonyms), true or false, 1 or 0; or, with a threshold, a number, harm from the threshold on. Every bad row is
reported in one pass, by file and line; no message quotes a text. Rows of the same prompt and response count once where
they agree; where they do not, the answer is left out and its rows are named.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tailrisk.errors import ConfigError, InputError
from tailrisk.promptfiles import READERS, Problem, Row, bad_rows
from tailrisk.prompts import PROMPT_COLUMNS

COLUMNS = {
    "prompt": (*(name for name in PROMPT_COLUMNS if name != "messages"), "objective"),
    "response": ("response", "answer", "completion", "output", "generation", "assistant_response"),
    "label": ("label", "human_label", "harmful", "is_harmful", "human_score"),
}
HARM_WORDS = ("harm", "harmful", "unsafe", "true", "yes", "1")
SAFE_WORDS = ("safe", "harmless", "false", "no", "0")
MAX_NAMED = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class Labelled:
    """An answer, by the line of the file that has it first."""

    line: int
    prompt: str
    response: str
    harm: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelFile:
    """``answers`` without those that ``contradictory`` rows are of (lines by answer); ``duplicates``: rows that say
    again what an earlier one said."""

    path: Path
    sha256: str
    columns: Mapping[str, str]
    rows: int
    answers: tuple[Labelled, ...]
    duplicates: int
    contradictory: tuple[tuple[int, ...], ...]


def read_labels(
    path: Path, *, columns: Mapping[str, str | None] | None = None, threshold: float | None = None
) -> LabelFile:
    """The labelled answers of a file. ``columns``: names for "prompt", "response" and "label", where they are given.

    ``ConfigError``: no such file, unknown suffix or no such column. ``InputError``: bad rows, all of them.
    """
    readers = {suffix: read for suffix, read in READERS.items() if suffix != ".txt"}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise ConfigError(f"{path}: unknown suffix of a file of labels; one of {', '.join(readers)}")
    if not path.is_file():
        raise ConfigError(f"{path}: no such file of labels")
    rows, problems = _split(reader(path))
    names = list(dict.fromkeys(key for row in rows for key in row.values))
    if not rows and not problems:
        raise InputError(f"{path}: no labelled answers in it")
    found: dict[str, str] = {}
    if rows:
        found = {what: _column(what, (columns or {}).get(what), names, path) for what in COLUMNS}
    answers: list[Labelled] = []
    for row in rows:
        try:
            answers.append(_answer(row, found, threshold))
        except ValueError as error:
            problems.append((row.line, str(error)))
    if problems:
        raise bad_rows(path, problems)
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    kept, duplicates, contradictory = _once(answers)
    return LabelFile(
        path=path,
        sha256=sha256,
        columns=found,
        rows=len(answers),
        answers=kept,
        duplicates=duplicates,
        contradictory=contradictory,
    )


def _split(rows: Iterable[Row | Problem]) -> tuple[list[Row], list[tuple[int, str]]]:
    good: list[Row] = []
    bad: list[tuple[int, str]] = []
    for row in rows:
        if isinstance(row, Problem):
            bad.append((row.line, row.what))
        else:
            good.append(row)
    return good, bad


def _column(what: str, given: str | None, names: Sequence[str], path: Path) -> str:
    lower = {name.lower(): name for name in reversed(names)}
    for name in COLUMNS[what] if given is None else (given,):
        if name in names or name.lower() in lower:
            return name if name in names else lower[name.lower()]
    shown = ", ".join(ascii(name[:40])[1:-1] for name in names[:20]) or "(none)"
    if given is not None:
        raise ConfigError(f"--{what}: {path} has no column {given!r}; its columns: {shown}")
    raise ConfigError(
        f"{path}: no column of {what}s: none of {', '.join(COLUMNS[what])} among {shown}; name it with --{what}"
    )


def _answer(row: Row, columns: Mapping[str, str], threshold: float | None) -> Labelled:
    return Labelled(
        line=row.line,
        prompt=_text(row.values.get(columns["prompt"]), columns["prompt"]),
        response=_text(row.values.get(columns["response"]), columns["response"], empty=True),
        harm=_label(row.values.get(columns["label"]), columns["label"], threshold),
    )


def _text(value: Any, column: str, *, empty: bool = False) -> str:
    """An answer may be empty: a model can say nothing."""
    if not isinstance(value, str):
        raise ValueError(f"{column!r} is {'missing' if value is None else 'not a text'}")
    if not (empty or value.strip()):
        raise ValueError(f"{column!r} is empty")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError(f"{column!r} holds half of a surrogate pair") from None
    return value


def _label(value: Any, column: str, threshold: float | None) -> bool:
    if value is None or (isinstance(value, str) and not value.strip()):
        raise ValueError(f"{column!r} is missing")
    if isinstance(value, list | dict):
        raise ValueError(f"{column!r} is neither a word nor a number")
    if threshold is not None:
        try:
            number = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if not math.isfinite(number):
            raise ValueError(f"{column!r} is no number, and a threshold for labels is given")
        return number >= threshold
    word = str(value).strip().lower()
    if isinstance(value, float) and value in (0.0, 1.0):
        word = str(int(value))
    if word in HARM_WORDS or word in SAFE_WORDS:
        return word in HARM_WORDS
    try:
        float(word)
    except ValueError:
        raise ValueError(f"{column!r} is none of {', '.join((*HARM_WORDS, *SAFE_WORDS))}") from None
    raise ValueError(
        f"{column!r} is a number that is neither 0 nor 1; say from where on it is harm (--threshold)"
    )


def _once(answers: Sequence[Labelled]) -> tuple[tuple[Labelled, ...], int, tuple[tuple[int, ...], ...]]:
    """Answers without their repetitions, how many these were, and the lines of those with two labels."""
    by_text: dict[tuple[str, str], list[Labelled]] = {}
    for answer in answers:
        by_text.setdefault((answer.prompt, answer.response), []).append(answer)
    alike = [group for group in by_text.values() if len({a.harm for a in group}) == 1]
    apart = [group for group in by_text.values() if len({a.harm for a in group}) > 1]
    return (
        tuple(group[0] for group in alike),
        sum(len(group) - 1 for group in alike),
        tuple(tuple(a.line for a in group) for group in apart),
    )
