"""The working directory of a job: the resolved configuration and the files that it names, and nothing else.

The files keep their places relative to the configuration, so that the paths in it stay as they are written: a run
has the same identity here and there. The folder lies in the cache under the digest of its content, where it stays
for a week.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import yaml

from tailrisk.cachedir import cache_dir
from tailrisk.cli.jobfiles import Source, sources
from tailrisk.config import Config
from tailrisk.configfile import load_config
from tailrisk.errors import ConfigError

MAX_BYTES = 100 * 2**20
ROOT = "tailrisk-job"
"""All is below a folder that cannot be imported: Ray puts the working directory first on Python's path."""
_NOT_SENT = {".git", ".venv", "venv", "__pycache__"}
"""Folders that Ray leaves out of a working directory wherever they are, without a word."""
_SHOWN = 5
_KEPT_S = 7 * 24 * 3600.0


class Package(NamedTuple):
    """``folder`` is the working directory, ``config`` the configuration's place in it."""

    folder: Path
    config: str
    files: int
    bytes: int


def pack(config: Config, name: str, *, limit: int = MAX_BYTES) -> Package:
    """Write the working directory of an audit that runs on a cluster; ``name`` is that of the configuration's file.

    Raises:
        ConfigError: a file is missing, cannot be sent, or all together are larger than ``limit`` bytes.
    """
    found = sources(config)
    _check_size(found, limit)
    text = resolved_text(config)
    there = _places(config.base, found)
    place = ROOT / there[config.base] / name
    content: dict[PurePosixPath, Path | bytes] = {PurePosixPath(place): text.encode()}
    for source in found:
        content[ROOT / there[source.path]] = source.file
    _check_folders(content)
    folder = _written(content)
    reread = load_config(folder / place)
    assert reread.model_dump() == on_cluster(config).model_dump(), (
        "the configuration changed when it was written"
    )
    size = len(text.encode()) + sum(source.file.stat().st_size for source in found)
    return Package(folder, str(place), len(content), size)


def on_cluster(config: Config) -> Config:
    """The configuration of the same audit when it runs as a job: it joins the Ray that it runs on."""
    return config.model_copy(update={"cluster": config.cluster.model_copy(update={"address": "auto"})})


def resolved_text(config: Config) -> str:
    """``on_cluster`` as YAML, defaults included; every text in quotes where it could be read as something else."""
    data = on_cluster(config).model_dump(mode="json")
    return yaml.dump(data, Dumper=_Quoting, sort_keys=False, allow_unicode=True, width=110)


class _Quoting(yaml.SafeDumper):
    """PyYAML would leave ``1e-5`` bare, which our reader takes for a number."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    style = None if value.replace("_", "").isalpha() else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Quoting.add_representer(str, _text)


def _places(base: Path, found: Sequence[Source]) -> dict[Path, PurePosixPath]:
    """Where the configuration's folder and every file go, relative to the folder that holds them all."""
    paths = {path: Path(os.path.normpath(path)) for path in [base, *(source.path for source in found)]}
    root = os.path.commonpath([base, *(path.parent for path in paths.values() if path != base)])
    return {path: PurePosixPath(clean.relative_to(root).as_posix()) for path, clean in paths.items()}


def _check_size(found: Sequence[Source], limit: int) -> None:
    sizes = sorted(
        ((source.file.stat().st_size, source) for source in found), reverse=True, key=lambda s: s[0]
    )
    total = sum(size for size, _ in sizes)
    if total <= limit:
        return
    largest = "".join(f"\n  {_mib(size):>10}  {s.field}: {s.file}" for size, s in sizes[:_SHOWN])
    raise ConfigError(
        f"the files that the configuration names are {_mib(total)} together; a job takes {_mib(limit)} along. "
        f"The largest:{largest}\n"
        "Put large files on storage that the whole cluster sees and give their absolute paths; a model may also "
        "be named by its hub id"
    )


def _check_folders(content: dict[PurePosixPath, Any]) -> None:
    for place in content:
        if wrong := _NOT_SENT.intersection(place.parts):
            raise ConfigError(
                f"{place.relative_to(ROOT)}: Ray sends nothing from a folder named {min(wrong)!r}; move the file"
            )


def _written(content: dict[PurePosixPath, Path | bytes]) -> Path:
    home = cache_dir() / "jobs"
    home.mkdir(mode=0o700, exist_ok=True)
    _sweep(home)
    scratch = Path(tempfile.mkdtemp(dir=home, prefix=".packing-"))
    try:
        digest = hashlib.sha256()
        for place, what in sorted(content.items()):
            target = scratch / place
            target.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(what, bytes):
                target.write_bytes(what)
            else:
                shutil.copyfile(what, target)
            with target.open("rb") as file:
                digest.update(f"{place} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
        folder = home / digest.hexdigest()[:16]
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(scratch, folder)
    except OSError as error:
        raise ConfigError(f"{error.filename or home}: cannot be packed ({error.strerror})") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return folder


def _sweep(home: Path) -> None:
    for folder in home.iterdir():
        with suppress(FileNotFoundError):
            if time.time() - folder.stat().st_mtime > _KEPT_S:
                shutil.rmtree(folder, ignore_errors=True)


def _mib(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"
