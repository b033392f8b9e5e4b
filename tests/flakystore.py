"""A store in this process, at ``flaky://BUCKET/...``, that fails, or shows what it holds, when a test says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import fsspec
from fsspec.implementations.memory import MemoryFileSystem


class FlakyStore(MemoryFileSystem):
    protocol = "flaky"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs = [""]  # noqa: RUF012
    fault: ClassVar[Callable[[str, str], None] | None] = None
    """Called with what is to be done (write, read, list, remove), or was (written), and the path; may raise."""

    @classmethod
    def reset(cls) -> None:
        cls.store.clear()
        cls.pseudo_dirs[:] = [""]
        cls.fault = None

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return super()._strip_protocol(path.replace("flaky://", "memory://", 1))

    @classmethod
    def _meet(cls, what: str, path: str) -> None:
        if cls.fault is not None:
            cls.fault(what, path)

    def open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        self._meet("read" if "r" in mode else "write", path)
        file = super().open(path, mode, **options)
        if "data" in options:
            self._meet("written", path)
        return file

    def find(self, path: str, **options: Any) -> Any:
        self._meet("list", path)
        return super().find(path, **options)

    def rm_file(self, path: str) -> None:
        self._meet("remove", path)
        super().rm_file(path)


fsspec.register_implementation("flaky", FlakyStore, clobber=True)
