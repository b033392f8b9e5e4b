"""One driver a run folder.

The lock is held by the operating system for as long as the process lives, so the lock of a dead driver is
free without any clean-up. ``lock.json`` beside it only says who holds it.
"""

from __future__ import annotations

import json
import os
import socket
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from tailrisk.errors import StoreError
from tailrisk.store.atomic import write_failed, write_json_atomic


class RunLock:
    """Held from construction to ``release``; ``StoreError`` at once if another driver holds it."""

    def __init__(self, folder: Path) -> None:
        self._owner = folder / "lock.json"
        self._lock = FileLock(folder / "lock")
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise StoreError(_held(folder, _read(self._owner))) from None
        except OSError as error:
            raise write_failed(folder / "lock", error) from error
        try:
            started = datetime.now(UTC).isoformat(timespec="seconds")
            write_json_atomic(
                self._owner, {"pid": os.getpid(), "host": socket.gethostname(), "started": started}
            )
        except BaseException:
            self._lock.release()
            raise

    def release(self) -> None:
        if self._lock.is_locked:
            with suppress(OSError):
                self._owner.unlink(missing_ok=True)
            self._lock.release()


def _read(path: Path) -> dict[str, Any]:
    try:
        owner = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return owner if isinstance(owner, dict) else {}


def _held(folder: Path, owner: dict[str, Any]) -> str:
    who = (
        f"process {owner.get('pid')} on host {owner.get('host')} since {owner.get('started')}"
        if owner
        else "another process"
    )
    return (
        f"{folder}: {who} is working on this run. Wait for it or stop it; to look at the run meanwhile use "
        "'tailrisk show', to start another one give it another run.name."
    )
