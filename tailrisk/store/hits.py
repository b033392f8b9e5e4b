"""``hits.jsonl``: the harmful draws of a run, one a line, heaviest first."""

from __future__ import annotations

import json
import mmap
import tempfile
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tailrisk.records import BatchResult, FloatArray, Verdict
from tailrisk.store.atomic import plain, replacing

Weights = Callable[[BatchResult], FloatArray] | Mapping[str, FloatArray]
_ENCODER = json.JSONEncoder(allow_nan=False)


def hit_rows(
    results: Iterable[BatchResult], weights: Weights, names: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Harmful draws as rows for ``write_hits``. ``weights`` gives the n weights of a batch, by a function
    of the batch or by its key; its batches may be fewer than the results (those left out give no rows)."""
    for result in results:
        hits = np.flatnonzero(result.verdicts == int(Verdict.HARM))
        if not hits.size:
            continue
        if isinstance(weights, Mapping):
            if result.batch.key not in weights:
                continue
            values = weights[result.batch.key]
        else:
            values = weights(result)
        log_q, scores = _finite(result.log_q[hits]), _finite(result.scores[hits])
        for j, i in enumerate(hits.tolist()):
            yield {
                "prompt_id": result.batch.prompt_id,
                "weight": float(values[i]),
                "component": names[result.batch.component],
                "batch": result.batch.key,
                "round": result.batch.round,
                "draw": i,
                "log_p": log_q[j][0],
                "log_q": log_q[j],
                "score": scores[j],
                "finished": bool(result.finished[i]),
                "text": result.texts[i],
            }


def write_hits(folder: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Writes ``hits.jsonl``, rows with the largest ``weight`` first (ties as they came); returns the number.

    Rows are spooled to disk, only their weights are held.
    """
    path = folder / "hits.jsonl"
    weights, starts = array("d"), array("q", [0])
    with (
        replacing(path) as temporary,
        tempfile.TemporaryFile(dir=folder) as spool,
        temporary.open("wb") as out,
    ):
        for row in rows:
            line = _line(row)
            weights.append(float(row["weight"]))
            starts.append(starts[-1] + len(line))
            spool.write(line)
        spool.flush()
        lines = mmap.mmap(spool.fileno(), 0, access=mmap.ACCESS_READ) if weights else b""
        for i in np.argsort(-np.asarray(weights), kind="stable").tolist():
            out.write(lines[starts[i] : starts[i + 1]])
    return len(weights)


def _line(row: Mapping[str, Any]) -> bytes:
    try:
        text = _ENCODER.encode(row)
    except (ValueError, TypeError):
        text = _ENCODER.encode(plain(row))
    return text.encode("ascii") + b"\n"


def _finite(values: FloatArray) -> list[Any]:
    """``values`` as lists, None where they are not finite."""
    if np.isfinite(values).all():
        return values.tolist()
    plain_values = values.astype(object)
    plain_values[~np.isfinite(values)] = None
    return plain_values.tolist()
