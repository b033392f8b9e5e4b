"""Files of answers that people are to label: JSON lines or CSV, by the name's ending."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tailrisk.errors import InputError
from tailrisk.records import Verdict

COLUMNS: tuple[str, ...] = ("index", "key", "prompt_id", "prompt", "answer", "pi", "label")
LABELS = {"harm": Verdict.HARM, "safe": Verdict.SAFE, "unsure": Verdict.UNDETERMINED}
MOST_TOLD = 10


class Labelled(NamedTuple):
    """``verdicts`` by key; ``open``: draws without a label yet."""

    verdicts: dict[str, Verdict]
    open: int


def write_review(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """One row a draw, with ``COLUMNS``, the label empty."""
    try:
        with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
            if path.suffix.lower() == ".csv":
                table = csv.DictWriter(file, list[str](COLUMNS))
                table.writeheader()
                table.writerows(rows)
            else:
                file.writelines(json.dumps(row) + "\n" for row in rows)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error})") from error


def read_labels(path: Path, keys: Mapping[str, object]) -> Labelled:
    """The labels of a file that ``write_review`` wrote and people filled in.

    Raises:
        InputError: naming every line with an unknown key, a key that was there before, or a label that is none.
    """
    seen: dict[str, int] = {}
    verdicts: dict[str, Verdict] = {}
    problems = []
    for number, row in _rows(path):
        key, label = str(row.get("key") or ""), str(row.get("label") or "").strip().lower()
        where = f"{path}:{number}"
        if key not in keys:
            problems.append(f"{where}: key {key!r} is not among the draws that this run gave out for review")
        elif key in seen:
            problems.append(f"{where}: key {key!r} is there twice (first at line {seen[key]})")
        elif label and label not in LABELS:
            problems.append(f"{where}: label {label!r} is none of {', '.join(LABELS)} (empty: no label yet)")
        else:
            seen[key] = number
            if label:
                verdicts[key] = LABELS[label]
    if problems:
        more = [f"and {len(problems) - MOST_TOLD} more"] if len(problems) > MOST_TOLD else []
        raise InputError("\n".join([*problems[:MOST_TOLD], *more]))
    return Labelled(verdicts, len(keys) - len(verdicts))


def _rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error
    if path.suffix.lower() == ".csv":
        table = csv.DictReader(text.splitlines(keepends=True))
        for row in table:
            yield table.line_num, row
        return
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise InputError(f"{path}:{number}: not JSON ({error})") from error
        if not isinstance(row, dict):
            raise InputError(f"{path}:{number}: not a JSON object")
        yield number, row
