"""Memory of a process that keeps millions of objects: Python's collector looks seldom, and what is freed goes back.

The collector of cyclic garbage looks at every object it knows again and again. A process that reads a log or keeps its
books makes millions that stay and next to none in cycles, and loses a tenth of its time to that.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
from collections.abc import Iterator

_SELDOM = (100_000, 20, 50)
"""Objects made since the last look at the youngest, and of how many such looks one goes further."""


@contextlib.contextmanager
def collected_seldom() -> Iterator[None]:
    """For the time of what needs it; the whole process is meant."""
    before = gc.get_threshold()
    gc.set_threshold(*_SELDOM)
    try:
        yield
    finally:
        gc.set_threshold(*before)


def give_back() -> None:
    """To the system, what was freed: the C library keeps it, and Python's objects are not made of it. Only glibc is
    asked, which other systems do not have."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
