"""From an address to a folder on this machine: what is there of a run, and what of it is here already."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from tailrisk.errors import StoreError
from tailrisk.store.atomic import write_bytes_atomic, write_failed
from tailrisk.store.remote.layout import (
    LEASES,
    MANIFEST,
    is_closed,
    is_log,
    parts,
    segment_name,
    segments,
    whole_lines,
)
from tailrisk.store.remote.objects import Objects

DERIVED = ("draws.parquet",)
"""Large, and written again from the log: not fetched."""
VIEW_TRIES = 3


class Fetched(NamedTuple):
    """``sent``: bytes of each segment of the log that are there, by its number; ``whole``: those that are closed, and
    lie there in one object."""

    sent: dict[int, int]
    whole: set[int]
    notes: list[str]


def fetch_run(objects: Objects, folder: Path, mark: Path) -> Fetched:
    """Bring a working copy up to what is at the address; the caller holds the lease.

    A copy that goes on where the address ends (its last upload failed, its driver died before one) is kept: what it has
    beyond is sent later. One that does not is set aside under another name. ``mark`` is there once a copy's manifest
    has been sent: it tells a run that was removed from the address from one that never came there.

    Raises:
        StoreError: the store does not answer, or the folder cannot be written.
    """
    names = objects.list()
    notes: list[str] = []
    if MANIFEST not in names:
        if mark.exists():
            notes.append(_set_aside(folder, f"the run is no longer at {objects.address}"))
        return Fetched({}, set(), notes)
    log = _fetch_log(objects, names, folder)
    if log is None:
        notes.append(
            _set_aside(folder, f"the run at {objects.address} has gone on elsewhere, from an earlier point")
        )
        log = _fetch_log(objects, names, folder)
        assert log is not None
    sent, whole, newer = log
    for name, size in _beside_the_log(names):
        if newer or name == MANIFEST or not (folder / name).exists():
            objects.fetch(name, folder / name, size)
    _touch(mark)
    return Fetched(sent, whole, notes)


def fetch_view(objects: Objects, folder: Path) -> None:
    """A copy to look at, of a run that is finished or in progress. Errors: as ``fetch_run``; and no run is there."""
    for _ in range(VIEW_TRIES - 1):
        try:
            return _fetch_view(objects, folder)
        except StoreError as error:
            if not isinstance(error.__cause__, FileNotFoundError):
                raise
            # Its driver has just put a whole segment in the place of parts.
    _fetch_view(objects, folder)


def _fetch_view(objects: Objects, folder: Path) -> None:
    names = objects.list()
    if MANIFEST not in names:
        raise StoreError(f"{objects.address}: there is no run folder, it has no {MANIFEST}")
    for stale in [path for path in folder.rglob("*") if path.is_file()]:
        name = stale.relative_to(folder).as_posix()
        if not is_log(name) and name not in names:
            stale.unlink()
    last = -1
    for last, data in segments(objects, names):
        path = folder / segment_name(last)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes_atomic(path, data)
    for path in (folder / "log").glob("*.jsonl"):
        if int(path.stem) > last:
            path.unlink()
    for name, size in _beside_the_log(names):
        objects.fetch(name, folder / name, size)


def _fetch_log(
    objects: Objects, names: dict[str, int], folder: Path
) -> tuple[dict[int, int], set[int], bool] | None:
    """As in ``Fetched``, and whether anything was new here; None where the folder's log is another one."""
    sent: dict[int, int] = {}
    whole: set[int] = set()
    newer = False
    for number, there in segments(objects, names):
        path = folder / segment_name(number)
        here = whole_lines(path.read_bytes()) if path.exists() else b""
        if not (here.startswith(there) or there.startswith(here)):
            return None
        if len(there) > len(here):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_bytes_atomic(path, there)
            newer = True
        sent[number] = len(there)
        if is_closed(there) and names.get(segment_name(number)) == len(there) and not parts(names, number):
            whole.add(number)
    return sent, whole, newer


def _beside_the_log(names: dict[str, int]) -> list[tuple[str, int]]:
    return [
        (name, size)
        for name, size in names.items()
        if not (is_log(name) or name.startswith((f"{LEASES}/", "/", ".")) or "/." in name or name in DERIVED)
    ]


def _set_aside(folder: Path, why: str) -> str:
    number = 1
    while (aside := folder.with_name(f"{folder.name}.aside-{number}")).exists():
        number += 1
    try:
        folder.rename(aside)
    except OSError as error:
        raise write_failed(folder, error) from error
    return f"{why}: the copy that was here is kept as {aside}"


def _touch(mark: Path) -> None:
    try:
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
    except OSError as error:
        raise write_failed(mark, error) from error
