"""Keeps an address up to what its working copy holds, behind the audit's back.

A thread sends: after each round, every ``SEND_S`` seconds, and at the end. What cannot be sent is told once and tried
again; it never ends a run, for everything is in the working copy first. What a driver could not send before it died is
drawn again by whoever goes on, by the same plan with the same seeds.
"""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Callable
from pathlib import Path

from tailrisk.errors import StoreError
from tailrisk.store.remote.fetch import fetch_run
from tailrisk.store.remote.layout import Part, parts, segment_name, whole_lines
from tailrisk.store.remote.lease import Lease
from tailrisk.store.remote.objects import Objects

SEND_S = 60.0
MOST_PARTS = 100
"""Parts of the open segment after which it is sent as a whole in their place."""
END_S, STOPPED_S = 1800.0, 30.0
"""How long the end waits for the last upload: of an audit, and of one that was interrupted."""
PATIENT_S = 3.0
"""A wait that is longer is told of."""
END_TRIES, PAUSE_S = 3, 2.0
_LOCKS = ("lock", "lock.json")


def check_address(address: str) -> None:
    """Make sure that objects at this address can be written, read and removed.

    Raises:
        StoreError: they cannot, or the package for such an address is missing; says which.
    """
    objects = Objects(address)
    name, data = f".tailrisk-{secrets.token_hex(8)}", b"a check; it can be removed"
    objects.write(name, data)
    there = objects.read(name)
    objects.remove(name)
    if there != data:
        raise StoreError(f"{address}: what was written is not what is read back")


class Mirror:
    """The run at ``address``, worked on in ``folder``; a context manager, held by one driver at a time.

    ``warn`` gets one line at the first trouble. ``notes``: what is worth telling of the working copy. ``trouble``: why
    the last upload failed, '' where it did not.

    Errors of the constructor: StoreError where another driver is at work or the store does not answer.
    """

    def __init__(
        self,
        address: str | Objects,
        folder: Path,
        *,
        warn: Callable[[str], None],
        say: Callable[[str], None] = lambda text: None,
        send_s: float = SEND_S,
    ) -> None:
        self._objects = Objects(address) if isinstance(address, str) else address
        self._folder = folder
        self._mark = folder.with_name(f".{folder.name}.sent")
        self._warn, self._say = warn, say
        self._send_s = send_s
        self._wake, self._end, self._done = threading.Event(), threading.Event(), threading.Event()
        self._warned = False
        self._files: dict[str, tuple[int, int]] = {}
        self.trouble = ""
        folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lease = Lease.take(self._objects, say=say)
        try:
            self._sent, self._whole, self.notes = fetch_run(self._objects, folder, self._mark)
        except BaseException:
            self._lease.release()
            raise
        self._thread = threading.Thread(target=self._work, name="tailrisk-mirror", daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        return self._objects.address

    def send(self) -> None:
        """Have what is new sent soon; returns at once."""
        self._wake.set()

    def check(self) -> None:
        """Raises StoreError where another driver has taken the run over; costs nothing."""
        if self._lease.lost:
            raise StoreError(
                f"{self.address}: {self._lease.lost} has taken this run over, as no sign of life of this driver had "
                f"come there for a while. It goes on with what was sent; the copy here is {self._folder}"
            )

    def close(self, limit_s: float = END_S) -> None:
        """Send the rest, give the lease back. Never raises; see ``trouble``."""
        self._end.set()
        self._wake.set()
        if not self._done.wait(min(PATIENT_S, limit_s)):
            self._say(f"sending the rest to {self.address}")
        if not self._done.wait(limit_s):
            self._met(f"not everything was sent within {limit_s:g} s")
        self._lease.release()

    def __enter__(self) -> Mirror:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        self.close(END_S if kind is None or issubclass(kind, Exception) else STOPPED_S)

    def _work(self) -> None:
        while not self._end.is_set():
            self._wake.wait(self._send_s)
            self._wake.clear()
            if not self._end.is_set():
                self._try(final=False)
        for _ in range(END_TRIES):
            self._try(final=True)
            if not self.trouble or self._lease.lost:
                break
            time.sleep(PAUSE_S)
        self._done.set()

    def _try(self, *, final: bool) -> None:
        try:
            if not self._lease.lost:
                self._lease.check()
            if self._lease.lost:
                self._met(f"{self.address}: {self._lease.lost} has taken this run over")
                return
            self._send_files((self._folder / "manifest.json",))
            self._send_log(final=final)
            self._send_files(sorted(path for path in self._folder.rglob("*") if path.is_file()))
            self.trouble = ""
        except StoreError as error:
            self._met(str(error))
        except OSError as error:  # of the working copy
            self._met(f"{self._folder}: cannot be read ({error})")

    def _met(self, reason: str) -> None:
        self.trouble = reason
        if not self._warned:
            self._warned = True
            self._warn(
                f"{reason}; the audit goes on in {self._folder}, and what is missing is sent after the next round and "
                "at the end"
            )

    def _send_log(self, *, final: bool) -> None:
        paths = sorted((self._folder / "log").glob("*.jsonl"))
        for number, path in enumerate(paths):
            if path != paths[-1]:
                if number not in self._whole:
                    self._send_whole(number, path)
                    self._whole.add(number)
                continue
            self._send_part(number, path)
            there = len(parts(self._objects.list("open"), number))
            if there > MOST_PARTS or (final and there):
                self._send_whole(number, path)

    def _send_part(self, number: int, path: Path) -> None:
        start = self._sent.get(number, 0)
        with path.open("rb") as file:
            file.seek(start)
            data = whole_lines(file.read())
        if data:
            self._objects.write(Part(number, start, self._lease.term).name, data)
            self._sent[number] = start + len(data)

    def _send_whole(self, number: int, path: Path) -> None:
        """The segment in one object; its parts go only when that is there."""
        data = whole_lines(path.read_bytes())
        self._objects.write(segment_name(number), data)
        self._sent[number] = len(data)
        for part in parts(self._objects.list("open"), number):
            self._objects.remove(part.name)

    def _send_files(self, paths: tuple[Path, ...] | list[Path]) -> None:
        """Files beside the log that have changed since they were sent."""
        for path in paths:
            name = path.relative_to(self._folder).as_posix()
            if name in _LOCKS or name.startswith("log/") or path.name.startswith("."):
                continue
            try:
                found = os.stat(path)
            except FileNotFoundError:  # written and gone again
                continue
            state = (found.st_mtime_ns, found.st_size)
            if self._files.get(name) != state:
                self._objects.send(name, path)
                self._files[name] = state
                if name == "manifest.json":
                    self._mark.touch()
