"""Content hashes of model files: what enters fingerprints and the manifest instead of paths."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from tailrisk.cachedir import cache_dir
from tailrisk.errors import ModelError

_VOLATILE_CONFIG_KEYS = ("transformers_version", "_name_or_path")


def text_digest(*parts: str | bytes) -> str:
    """sha256 over length-prefixed parts, hexadecimal."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "big"))
        digest.update(data)
    return digest.hexdigest()


def proposal_digest(target: str, own: str) -> str:
    """Fingerprint of a proposal to the law ``target``, from the two laws' own."""
    return text_digest(target, own)


def ids_digest(ids: Iterable[int]) -> str:
    """sha256 of a sequence of token ids."""
    return text_digest(*(str(i) for i in ids))


def file_digest(path: Path) -> str:
    """sha256 of a file, kept in the cache under its path, size and time of change.

    Errors: ModelError where the file cannot be read.
    """
    try:
        stat = path.stat()
        key = text_digest(str(path.resolve()), str(stat.st_size), str(stat.st_mtime_ns), str(stat.st_ino))
        note = cache_dir() / "digests" / key
        if note.is_file() and len(known := note.read_text("ascii").strip()) == 64:
            return known
        with path.open("rb") as stream:
            value = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror})") from error
    _write_whole(note, value)
    return value


def config_digest(path: Path) -> str:
    """sha256 of a ``config.json``, without the keys that say only who wrote it."""
    try:
        data = json.loads(path.read_text("utf-8"))
        if not isinstance(data, dict):
            raise ValueError("not a JSON object")
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read as JSON ({error})") from error
    for key in _VOLATILE_CONFIG_KEYS:
        data.pop(key, None)
    return text_digest(json.dumps(data, sort_keys=True))


def _write_whole(path: Path, text: str) -> None:
    """Writes all or nothing; a cache that cannot be written costs time only, so errors are let go."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent)
        with os.fdopen(handle, "w", encoding="ascii") as stream:
            stream.write(text)
        os.replace(name, path)
    except OSError:
        return
