"""Files that are there in full or not at all.

Every write goes to a temporary name in the same folder, is synced, renamed over the final name, and the
folder is synced. A file system error becomes a ``StoreError`` that says what to do.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from tailrisk.errors import StoreError

_quoted = json.encoder.encode_basestring


def write_failed(path: Path, error: OSError) -> StoreError:
    """The one message for a write that the file system refused."""
    reason = error.strerror or str(error) or type(error).__name__
    return StoreError(
        f"{path}: could not be written ({reason}). Nothing logged so far is lost: free space or repair the "
        "disk, then run the same command again."
    )


def sync_folder(folder: Path) -> None:
    """Makes a creation or rename inside ``folder`` durable."""
    if os.name == "nt":  # folders cannot be opened there
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a temporary path to fill; on success it becomes ``path``, otherwise it is removed."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        handle = os.open(temporary, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        raise write_failed(path, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_bytes_atomic(path: Path, data: bytes) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_json_atomic(path: Path, obj: Any) -> None:
    """Writes ``obj`` as indented JSON; iterators among the values of a mapping are lists, of which one item at a
    time is in memory. Numpy numbers and arrays are taken; a NaN or an infinity is a
    ``StoreError`` that names its place (JSON has neither: write None where a number is missing)."""
    with replacing(path) as temporary, temporary.open("wb") as out:
        for text in _texts(obj):
            out.write(text.encode("utf-8", errors="replace"))
        out.write(b"\n")


def _texts(obj: Any) -> Iterator[str]:
    if not (isinstance(obj, Mapping) and any(isinstance(value, Iterator) for value in obj.values())):
        yield _indented(obj, "", 0)
        return
    yield "{"
    for n, (key, value) in enumerate(obj.items()):
        yield f"{',' if n else ''}\n {json.dumps(str(key), ensure_ascii=False)}: "
        if not isinstance(value, Iterator):
            yield _indented(value, str(key), 1)
            continue
        i = -1
        yield "["
        for i, item in enumerate(value):
            yield f"{',' if i else ''}\n  {_indented(item, f'{key}.{i}', 2)}"
        yield "]" if i < 0 else "\n ]"
    yield "\n}"


def _indented(obj: Any, where: str, depth: int) -> str:
    end = "\n" + " " * depth
    try:
        return _text(obj, end)
    except _NotPlainError:
        return _text(plain(obj, where), end)


class _NotPlainError(Exception):
    """A value that JSON has no word for, or that must be made plain first."""


def _text(obj: Any, end: str) -> str:
    """As ``json.dumps`` with an indent of one writes it, which is slow at that. ``end``: the line break before the
    bracket that closes the value."""
    if obj is None:
        return "null"
    if isinstance(obj, bool):
        return "true" if obj else "false"
    if isinstance(obj, str):
        return _quoted(obj)
    if isinstance(obj, float):
        if not math.isfinite(obj):
            raise _NotPlainError
        return float.__repr__(obj)
    if isinstance(obj, int):
        return int.__repr__(obj)
    inner = end + " "
    if isinstance(obj, dict):
        items = [f"{_quoted(str(key))}: {_text(value, inner)}" for key, value in obj.items()]
        return f"{{{inner}{(',' + inner).join(items)}{end}}}" if items else "{}"
    if isinstance(obj, list | tuple):
        listed = [_text(value, inner) for value in obj]
        return f"[{inner}{(',' + inner).join(listed)}{end}]" if listed else "[]"
    raise _NotPlainError


def plain(obj: Any, where: str = "") -> Any:
    """``obj`` as dicts, lists and JSON scalars."""
    if obj is None or isinstance(obj, (str, bool)):
        return obj
    if isinstance(obj, np.generic | np.ndarray):
        return plain(obj.tolist(), where)
    if isinstance(obj, int):
        return int(obj)
    if isinstance(obj, float):
        if not math.isfinite(obj):
            raise StoreError(f"{where or 'the value'} is {obj}, which JSON cannot hold; write null instead")
        return obj
    if isinstance(obj, Mapping):
        return {str(key): plain(value, f"{where}.{key}".lstrip(".")) for key, value in obj.items()}
    if isinstance(obj, Sequence) and not isinstance(obj, (bytes, bytearray)):
        return [plain(value, f"{where}.{i}".lstrip(".")) for i, value in enumerate(obj)]
    if isinstance(obj, Path):
        return str(obj)
    convert: Callable[[], Any] | None = getattr(obj, "_asdict", None)
    if convert is not None:
        return plain(convert(), where)
    raise StoreError(f"{where or 'the value'} is a {type(obj).__name__}, which JSON cannot hold")
