"""The objects below one address, by names such as ``log/00000.jsonl``; what fsspec can write to, and only here.

Every call has a time limit, and whatever a store or its client raises is a ``StoreError`` with the address and the
reason. Credentials are those that the package for the address finds in the environment.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from tailrisk.errors import StoreError
from tailrisk.store.atomic import replacing

CALL_S = 60.0
"""Time limit of a call; of one that moves many bytes a second more for each of the least rate."""
LEAST_BYTES_PER_S = 2**20
SETTLE_S = 1.0
_PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs", "az": "adlfs"}

T = TypeVar("T")


class Objects:
    """Errors of the constructor: StoreError for an address that no installed package writes to."""

    def __init__(self, address: str) -> None:
        from fsspec.core import url_to_fs

        self.address = address.rstrip("/")
        self._fs: Any
        try:
            self._fs, root = url_to_fs(self.address)
        except ImportError as error:
            scheme = address.partition("://")[0]
            package = _PACKAGES.get(scheme)
            remedy = f"pip install {package}" if package else " ".join(str(error).split())
            raise StoreError(
                f"{address}: the package for such addresses is not installed: {remedy}"
            ) from error
        except Exception as error:
            raise StoreError(f"{address}: cannot be used ({_reason(error)})") from error
        self._root = str(root).rstrip("/")

    def list(self, folder: str = "") -> dict[str, int]:
        """Sizes in bytes of all objects, or of those below ``folder``, by name."""

        def find() -> dict[str, Any]:
            self._fs.invalidate_cache()
            with suppress(FileNotFoundError):
                return dict(self._fs.find(self._path(folder).rstrip("/"), detail=True))
            return {}

        found = self._call("cannot be listed", find)
        start = len(self._root) + 1
        return {path[start:]: int(entry["size"] or 0) for path, entry in sorted(found.items())}

    def read(self, name: str, size: int = 0) -> bytes:
        return self._call("could not be read", lambda: self._fs.cat_file(self._path(name)), name, size)

    def write(self, name: str, data: bytes) -> None:
        self._call("could not be written", lambda: self._put(name, data), name, len(data))

    def create(self, name: str, data: bytes) -> bool:
        """Write an object that is not there yet; False where it is. ``data`` tells this writer from any other.

        Exact where the store can do it (S3, Google Cloud Storage, Azure, folders). Elsewhere it is looked twice, which
        two writers in the same second may both pass.
        """
        try:
            self._call("could not be written", lambda: self._put_new(name, data), name, len(data))
            return True
        except StoreError as error:
            # An answer may also be lost on its way back: what is there now tells who has written it.
            if name in self.list(name.rpartition("/")[0]):
                return self.read(name) == data
            if not isinstance(error.__cause__, NotImplementedError | ValueError | TypeError):
                raise
        self.write(name, data)
        time.sleep(SETTLE_S)
        return self.read(name) == data

    def send(self, name: str, file: Path) -> None:
        """A file of this machine as an object."""

        def put() -> None:
            self._make_folder(name)
            self._fs.put_file(str(file), self._path(name))

        self._call("could not be written", put, name, file.stat().st_size)

    def fetch(self, name: str, file: Path, size: int) -> None:
        """An object as a file of this machine, there in full or not at all."""
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as temporary:
            path = str(temporary)
            self._call("could not be read", lambda: self._fs.get_file(self._path(name), path), name, size)

    def remove(self, name: str) -> None:
        """Nothing where there is no such object."""

        def remove() -> None:
            with suppress(FileNotFoundError):
                self._fs.rm_file(self._path(name))

        self._call("could not be removed", remove, name)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _put(self, name: str, data: bytes) -> None:
        self._make_folder(name)
        self._fs.pipe_file(self._path(name), data)

    def _put_new(self, name: str, data: bytes) -> None:
        from fsspec.asyn import AsyncFileSystem

        if isinstance(self._fs, AsyncFileSystem):
            self._fs.pipe_file(self._path(name), data, mode="create")
            return
        self._make_folder(name)
        with self._fs.open(self._path(name), "xb") as file:
            file.write(data)

    def _make_folder(self, name: str) -> None:
        """Object stores have none, and some of their clients would make a bucket."""
        from fsspec.asyn import AsyncFileSystem

        if not isinstance(self._fs, AsyncFileSystem):
            self._fs.makedirs(self._path(name).rpartition("/")[0], exist_ok=True)

    def _call(self, failed: str, call: Callable[[], T], name: str = "", size: int = 0) -> T:
        """``call`` in a thread of its own, which is left behind where it does not come back in time."""
        answer: queue.SimpleQueue[tuple[T | None, Exception | None]] = queue.SimpleQueue()

        def run() -> None:
            try:
                answer.put((call(), None))
            except Exception as error:
                answer.put((None, error))

        threading.Thread(target=run, name="tailrisk-store", daemon=True).start()
        limit = CALL_S + size / LEAST_BYTES_PER_S
        place = f"{self.address}/{name}" if name else self.address
        try:
            value, error = answer.get(timeout=limit)
        except queue.Empty:
            raise StoreError(f"{place}: {failed} (no answer in {limit:.0f} s)") from None
        if error is not None:
            raise StoreError(f"{place}: {failed} ({_reason(error)})") from error
        return value  # pyright: ignore[reportReturnType]


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split())
    name = type(error).__name__
    return f"{name}: {text[:300]}" if text else name
