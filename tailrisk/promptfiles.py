"""Reading prompt files row by row, in bounded memory, with the line of every row.

A reader yields ``Row`` for what could be read and ``Problem`` for what could not, and goes on after a bad
row where the format allows. Texts are checked by the caller.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tailrisk.errors import InputError

MAX_LINE = 1_000_000
MAX_SHOWN = 50
_BOM = b"\xef\xbb\xbf"


class Row(NamedTuple):
    """One row; ``line`` counts from 1 (of a parquet file: the row)."""

    line: int
    values: dict[str, Any]


class Problem(NamedTuple):
    line: int
    what: str


def bad_rows(path: Path, problems: Iterable[tuple[int, str]]) -> InputError:
    """All that is wrong with a file, by line; of very many problems the first."""
    listed = sorted(problems)
    lines = [f"{path}:{line}: {what}" for line, what in listed[:MAX_SHOWN]]
    if len(listed) > MAX_SHOWN:
        lines.append(f"{path}: and {len(listed) - MAX_SHOWN} more problems")
    return InputError("\n".join(lines))


def read_jsonl(path: Path) -> Iterator[Row | Problem]:
    """One JSON object a line; lines of nothing but white space are passed over."""
    for item in _lines(path):
        if isinstance(item, Problem):
            yield item
            continue
        line, text = item
        if not text.strip():
            continue
        try:
            values = json.loads(text, object_pairs_hook=_no_doubles)
        except _DoubledKeyError as error:
            yield Problem(line, f"doubled key {str(error)[:40]!a}")
            continue
        except RecursionError:
            yield Problem(line, "not valid JSON (nested too deeply)")
            continue
        except ValueError as error:
            what = getattr(error, "msg", "a number is too long")
            yield Problem(line, f"not valid JSON ({what} at character {getattr(error, 'pos', 0)})")
            continue
        if isinstance(values, dict):
            yield Row(line, values)
        else:
            yield Problem(line, f"a JSON {type(values).__name__}, not an object with keys such as 'prompt'")


def read_txt(path: Path) -> Iterator[Row | Problem]:
    """One prompt a line; empty lines at the end of the file are passed over."""
    empty: list[int] = []
    for item in _lines(path):
        if not isinstance(item, Problem) and not item[1].strip():
            empty.append(item[0])
            continue
        for line in empty:
            yield Problem(
                line, "an empty line; each line is one prompt, use jsonl for prompts of several lines"
            )
        empty.clear()
        yield item if isinstance(item, Problem) else Row(item[0], {"prompt": item[1].rstrip("\r\n")})


def read_csv(path: Path) -> Iterator[Row | Problem]:
    """The first line names the columns; after a line that breaks the quoting nothing more can be read."""
    bad: list[Problem] = []

    def texts() -> Iterator[str]:
        for item in _lines(path):
            if isinstance(item, Problem):
                bad.append(item)
                yield "\n"
            else:
                yield item[1]

    rows = csv.reader(texts(), delimiter="\t" if path.suffix.lower() == ".tsv" else ",", strict=True)
    header: list[str] | None = None
    line = 1
    while True:
        try:
            cells = next(rows, None)
        except csv.Error as error:
            yield from bad
            yield Problem(
                line, f"the row that begins here is not valid CSV ({error}); later rows were not read"
            )
            return
        if bad:
            yield from bad
            bad.clear()
            if header is None:
                return
        elif cells is None:
            return
        elif header is None:
            header = [name.strip() for name in cells]
            if len(set(header)) < len(header):
                yield Problem(line, "two columns have the same name")
                return
        elif len(cells) == len(header):
            yield Row(line, dict(zip(header, cells, strict=True)))
        elif cells:
            yield Problem(line, f"{len(cells)} cells, the header has {len(header)}")
        if cells is None:
            return
        line = rows.line_num + 1


def read_parquet(path: Path) -> Iterator[Row | Problem]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024):
                for values in batch.to_pylist():
                    number += 1
                    yield Row(number, values)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        yield Problem(number + 1, f"the file cannot be read as parquet ({str(error).splitlines()[0][:200]})")


READERS: dict[str, Callable[[Path], Iterator[Row | Problem]]] = {
    ".jsonl": read_jsonl,
    ".csv": read_csv,
    ".tsv": read_csv,
    ".parquet": read_parquet,
    ".txt": read_txt,
}


def _lines(path: Path) -> Iterator[tuple[int, str] | Problem]:
    """Lines as text with their numbers, a line too long or not UTF-8 as a problem."""
    with path.open("rb") as file:
        number = 0
        while data := file.readline(MAX_LINE + 1):
            number += 1
            if number == 1:
                data = data.removeprefix(_BOM)
            if len(data) > MAX_LINE:
                while data and not data.endswith(b"\n"):
                    data = file.readline(MAX_LINE)
                yield Problem(number, f"longer than {MAX_LINE:,} bytes")
                continue
            try:
                yield number, data.decode("utf-8")
            except UnicodeDecodeError as error:
                hint = " (UTF-16?)" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else ""
                yield Problem(number, f"not UTF-8 text at byte {error.start}{hint}; save the file as UTF-8")


class _DoubledKeyError(ValueError):
    pass


def _no_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in pairs:
        if key in values:
            raise _DoubledKeyError(key)
        values[key] = value
    return values
