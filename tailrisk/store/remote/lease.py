"""One driver a run at an address, whichever machine it is on: a lease that is kept alive, and can be seen to die.

A lease is an object ``leases/TERM.json`` with host and process, made by whoever is first (``Objects.create``) and
written anew every few seconds while its driver lives. The highest term holds the run. A term that has ended, that says
nothing new for ``DEAD_S`` seconds, or whose process is gone from this machine, is followed by the next one; its driver,
should it only have slept, finds the higher term and sends nothing more. No clock of another machine is trusted.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from tailrisk.errors import StoreError
from tailrisk.store.remote.layout import LEASES
from tailrisk.store.remote.objects import Objects

BEAT_S = 10.0
DEAD_S = 60.0
_LOOK_S = 1.0
_OWN: set[str] = set()
"""Ids of the leases that this process holds: another one with its number was that of a process before it."""


class Lease:
    """Held from ``take`` to ``release``. ``term`` is its number; ``lost`` says who has taken the run over, or ''."""

    def __init__(self, objects: Objects, term: int, record: dict[str, Any], beat_s: float) -> None:
        self.term = term
        self.lost = ""
        self._objects = objects
        self._record = record
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, args=(beat_s,), name="tailrisk-lease", daemon=True)
        self._thread.start()

    @classmethod
    def take(
        cls,
        objects: Objects,
        *,
        say: Callable[[str], None] = lambda text: None,
        beat_s: float = BEAT_S,
        dead_s: float = DEAD_S,
    ) -> Lease:
        """The lease of the run, at once where nobody holds it; at most ``dead_s`` seconds later where its holder died.

        Raises:
            StoreError: another driver is at work (which one), or the store does not answer.
        """
        term, holder = _holder(objects)
        if holder is not None:
            _wait_for_death(objects, term, holder, dead_s, say)
        record = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "machine": machine(),
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "id": secrets.token_hex(8),
            "beat": 0,
        }
        _OWN.add(record["id"])
        if not objects.create(_name(term + 1), json.dumps(record).encode()):
            _OWN.discard(record["id"])
            raise StoreError(_held(objects, _read(objects, term + 1)))
        with suppress(StoreError):
            for old in _terms(objects):
                if old < term:
                    objects.remove(_name(old))
        return cls(objects, term + 1, record, beat_s)

    def check(self) -> None:
        """Look whether this lease still holds the run. Raises StoreError where the store does not answer."""
        term = max(_terms(self._objects), default=self.term)
        if term > self.term:
            self.lost = _who(_read(self._objects, term))

    def release(self) -> None:
        """Safe to call twice; a store that does not answer finds the lease dead some time later."""
        if self._over.is_set():
            return
        self._over.set()
        _OWN.discard(self._record["id"])
        self._thread.join(timeout=5.0)
        if not self.lost:
            with suppress(StoreError):
                self._write({"ended": True})

    def _beat(self, beat_s: float) -> None:
        while not self._over.wait(beat_s):
            with suppress(StoreError):
                self.check()
                if self.lost:
                    return
                self._record["beat"] += 1
                self._write({})

    def _write(self, more: dict[str, Any]) -> None:
        self._objects.write(_name(self.term), json.dumps({**self._record, **more}).encode())


def machine() -> str:
    """Two processes of the same machine, and the same container of it, can see whether the other one lives."""
    try:
        space = os.readlink("/proc/self/ns/pid")
    except OSError:
        space = ""
    return f"{socket.gethostname()} {space}".strip()


def _wait_for_death(
    objects: Objects, term: int, holder: dict[str, Any], dead_s: float, say: Callable[[str], None]
) -> None:
    if _ended(holder):
        return
    say(f"{_who(holder)} was working on this run; waiting up to {dead_s:.0f} s for a sign of life")
    deadline = time.monotonic() + dead_s
    while time.monotonic() < deadline:
        time.sleep(min(_LOOK_S, dead_s / 4))
        now = _read(objects, term)
        if now.get("ended") is True:
            return
        if now.get("beat") != holder.get("beat"):
            raise StoreError(_held(objects, now))


def _ended(holder: dict[str, Any]) -> bool:
    if holder.get("ended") is True:
        return True
    pid = holder.get("pid")
    if holder.get("machine") != machine() or not isinstance(pid, int):
        return False
    if pid == os.getpid():
        return holder.get("id") not in _OWN
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def _holder(objects: Objects) -> tuple[int, dict[str, Any] | None]:
    term = max(_terms(objects), default=0)
    return term, (_read(objects, term) if term else None)


def _terms(objects: Objects) -> list[int]:
    names = (name.removeprefix(f"{LEASES}/").removesuffix(".json") for name in objects.list(LEASES))
    return [int(name) for name in names if name.isdigit()]


def _name(term: int) -> str:
    return f"{LEASES}/{term:04d}.json"


def _read(objects: Objects, term: int) -> dict[str, Any]:
    try:
        record = json.loads(objects.read(_name(term)))
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


def _who(record: dict[str, Any]) -> str:
    if not record:
        return "another process"
    return f"process {record.get('pid')} on host {record.get('host')} (since {record.get('started')})"


def _held(objects: Objects, record: dict[str, Any]) -> str:
    return (
        f"{objects.address}: {_who(record)} is working on this run. Wait for it or stop it; to look at the run "
        "meanwhile use 'tailrisk show', to start another one give it another run.name."
    )
