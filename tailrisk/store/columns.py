"""Columns of a table straight from numpy and strings: ``pyarrow.array`` would load pandas, wherever that is installed.

Every function returns a ``pyarrow.Array``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def numbers(values: NDArray[Any], present: NDArray[np.bool_] | None = None) -> Any:
    """[n] of the values' own type, null where they are not ``present`` (None: all are)."""
    import pyarrow as pa

    kept = np.ascontiguousarray(values)
    buffers = [_bits(present), pa.py_buffer(kept)]
    return pa.Array.from_buffers(pa.from_numpy_dtype(kept.dtype), len(kept), buffers)


def booleans(values: NDArray[np.bool_]) -> Any:
    import pyarrow as pa

    return pa.Array.from_buffers(pa.bool_(), len(values), [None, _bits(values)])


def strings(texts: Sequence[str], present: NDArray[np.bool_] | None = None) -> Any:
    """[n] strings. Half of a surrogate pair, which a decoder may leave and UTF-8 cannot hold, becomes a question
    mark."""
    import pyarrow as pa

    joined = "".join(texts)
    if joined.isascii():
        lengths, data = list(map(len, texts)), joined.encode("ascii")
    else:
        encoded = [text.encode("utf-8", "replace") for text in texts]
        lengths, data = list(map(len, encoded)), b"".join(encoded)
    buffers = [_bits(present), pa.py_buffer(_offsets(lengths)), pa.py_buffer(data)]
    return pa.Array.from_buffers(pa.string(), len(texts), buffers)


def lists(lengths: Any, values: NDArray[Any]) -> Any:
    """[n] lists of these ``lengths``, whose items are ``values`` one after another."""
    import pyarrow as pa

    offsets = pa.Array.from_buffers(pa.int32(), len(lengths) + 1, [None, pa.py_buffer(_offsets(lengths))])
    return pa.ListArray.from_arrays(offsets, numbers(values))


def chosen(names: Sequence[str], which: NDArray[Any], present: NDArray[np.bool_] | None = None) -> Any:
    """[n] strings, each one of ``names`` by its number."""
    return strings(names).take(numbers(which, present))


def _offsets(lengths: Any) -> NDArray[np.int32]:
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    if offsets[-1] > np.iinfo(np.int32).max:
        raise ValueError(f"{offsets[-1]} bytes or items in one part of a column")
    return offsets.astype(np.int32)


def _bits(values: NDArray[np.bool_] | None) -> Any:
    import pyarrow as pa

    return None if values is None else pa.py_buffer(np.packbits(values, bitorder="little"))
