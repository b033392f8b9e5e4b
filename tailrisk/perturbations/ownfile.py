"""Perturbations of one's own: a file of rows with the base prompt's id, the text, and a name where there is one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tailrisk.errors import ConfigError
from tailrisk.perturbations.groups import Proposed
from tailrisk.promptfiles import READERS, Problem, Row, bad_rows
from tailrisk.prompts import PROMPT_COLUMNS
from tailrisk.records import Prompt

KIND = "own"
BASE_COLUMNS = ("base", "base_id", "group", "id")
TEXT_COLUMNS = ("text", *(name for name in PROMPT_COLUMNS if name not in ("text", "messages")))
NAME_COLUMNS = ("name", "kind", "perturbation")
_NAME = re.compile(r"[A-Za-z0-9_-]{1,40}")


def read_own(path: Path, bases: Sequence[Prompt]) -> dict[str, list[Proposed]]:
    """Base id -> its texts in file order, under their names (``own`` and a number without).

    ``ConfigError``: no such file, unknown suffix or no such column. ``InputError``: bad rows, all of them.
    """
    readers = {suffix: read for suffix, read in READERS.items() if suffix != ".txt"}
    if path.suffix.lower() not in readers:
        raise ConfigError(f"--from: {path}: unknown suffix; one of {', '.join(readers)}")
    if not path.is_file():
        raise ConfigError(f"--from: {path}: no such file")
    rows, problems = list[Row](), list[tuple[int, str]]()
    for row in readers[path.suffix.lower()](path):
        if isinstance(row, Problem):
            problems.append((row.line, row.what))
        else:
            rows.append(row)
    names = list(dict.fromkeys(key for row in rows for key in row.values))
    columns = [_column(wanted, names) for wanted in (BASE_COLUMNS, TEXT_COLUMNS, NAME_COLUMNS)]
    for what, column, wanted in zip(
        ("base prompts' ids", "texts"), columns, (BASE_COLUMNS, TEXT_COLUMNS), strict=False
    ):
        if rows and column is None:
            raise ConfigError(f"--from: {path}: no column of the {what}: none of {', '.join(wanted)}")
    found: dict[str, list[Proposed]] = {base.id: [] for base in bases}
    for row in rows:
        try:
            base, name, text = _read(row.values, columns, found)
            number = 1 + sum(p.name.startswith(f"{KIND}-") for p in found[base])
            found[base].append(Proposed(name or KIND, name or f"{KIND}-{number}", text))
        except ValueError as error:
            problems.append((row.line, str(error)))
    if problems:
        raise bad_rows(path, problems)
    return found


def _read(
    values: dict[str, Any], columns: Sequence[str | None], known: dict[str, list[Proposed]]
) -> tuple[str, str | None, str]:
    """Base id, name and text of a row. Raises ValueError."""
    base_column, text_column, name_column = columns
    base, text = values.get(base_column or ""), values.get(text_column or "")
    if isinstance(base, int) and not isinstance(base, bool):
        base = str(base)
    if not isinstance(base, str) or base not in known:
        raise ValueError(f"{base_column!r} is not the id of a prompt")
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"{text_column!r} is empty or not a text")
    if re.search("[\0\ud800-\udfff]", text):
        raise ValueError(f"{text_column!r} holds a character that no prompt may hold")
    name = values.get(name_column) if name_column else None
    if name is None or name == "":
        return base, None, text
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(f"{name_column!r} is refused: 1 to 40 of the characters A-Z a-z 0-9 _ -")
    return base, name, text


def _column(wanted: Sequence[str], names: Sequence[str]) -> str | None:
    return next((n for w in wanted for n in names if n.lower() == w), None)
