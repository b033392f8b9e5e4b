"""What readers get from a log: one row a draw as parquet, and the harmful draws, heaviest first.

All of it works from the log alone, without the lock, on a run that is finished or in progress. Batches are
streamed; none of these functions holds all draws in memory.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tailrisk.errors import StoreError
from tailrisk.records import BatchResult, FloatArray, JudgedTexts, Verdict
from tailrisk.store.atomic import plain, replacing
from tailrisk.store.codec import Verdicts, decode
from tailrisk.store.log import read_log

ROW_GROUP = 8192
Weights = Callable[[BatchResult], FloatArray] | Mapping[str, FloatArray]


def final_results(folder: Path) -> Iterator[BatchResult]:
    """Every logged batch in the order of the log, with the last verdicts given to it."""
    later: dict[str, JudgedTexts] = {}
    for kind, payload in read_log(folder):
        if kind == "verdicts":
            record = decode(kind, payload)
            assert isinstance(record, Verdicts)
            later[record.key] = record.judged
    for kind, payload in read_log(folder):
        if kind == "batch":
            result = decode(kind, payload)
            assert isinstance(result, BatchResult)
            judged = later.get(result.batch.key)
            if judged is not None:
                result = replace(
                    result, verdicts=judged.verdicts, scores=judged.scores, judge_errors=judged.errors
                )
            yield result


def export_draws(folder: Path, path: Path, names: Sequence[str]) -> int:
    """Writes ``path`` (parquet), one row a draw in the order of the log; returns the number of rows.

    ``names`` are the components' names, the target's first. ``log_q`` is a list in the same order (its
    first element is ``log_p``), ``-inf`` where a component cannot produce the response and NaN where the draw
    was not scored under it. ``score`` is null where the judge gave none; ``seed`` is the batch's.
    """
    import pyarrow.parquet as pq

    schema = _schema()
    rows = 0
    with replacing(path) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        for group in _groups(final_results(folder)):
            writer.write_table(_table(group, names, schema))
            rows += sum(r.n for r in group)
    return rows


def hit_rows(folder: Path, weights: Weights, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Harmful draws as rows for ``write_hits``. ``weights`` gives the n weights of a batch, by a function
    of the batch or by its key; its batches may be fewer than the log's (those left out give no rows)."""
    for result in final_results(folder):
        hits = np.flatnonzero(result.verdicts == Verdict.HARM)
        if not hits.size:
            continue
        if isinstance(weights, Mapping):
            if result.batch.key not in weights:
                continue
            values = weights[result.batch.key]
        else:
            values = weights(result)
        for i in hits:
            yield {
                "prompt_id": result.batch.prompt_id,
                "weight": float(values[i]),
                "component": names[result.batch.component],
                "batch": result.batch.key,
                "round": result.batch.round,
                "draw": int(i),
                "log_p": _finite(result.log_q[i, 0]),
                "log_q": [_finite(v) for v in result.log_q[i]],
                "score": _finite(result.scores[i]),
                "finished": bool(result.finished[i]),
                "text": result.texts[i],
            }


def write_hits(folder: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Writes ``hits.jsonl``, rows with the largest ``weight`` first (ties as they came); returns the number.

    Rows are spooled to disk, only their weights are held.
    """
    path = folder / "hits.jsonl"
    spans: list[tuple[float, int, int]] = []
    with (
        replacing(path) as temporary,
        tempfile.TemporaryFile(dir=folder) as spool,
        temporary.open("wb") as out,
    ):
        for row in rows:
            line = json.dumps(plain(row), allow_nan=False).encode("ascii") + b"\n"
            spans.append((-float(row["weight"]), spool.tell(), len(line)))
            spool.write(line)
        for _, start, length in sorted(spans):
            spool.seek(start)
            out.write(spool.read(length))
    return len(spans)


def _groups(results: Iterable[BatchResult]) -> Iterator[list[BatchResult]]:
    group: list[BatchResult] = []
    rows = 0
    for result in results:
        group.append(result)
        rows += result.n
        if rows >= ROW_GROUP:
            yield group
            group, rows = [], 0
    if group:
        yield group


def _schema() -> Any:
    import pyarrow as pa

    return pa.schema(
        [
            ("prompt_id", pa.string()),
            ("component", pa.string()),
            ("batch_key", pa.string()),
            ("round", pa.int32()),
            ("draw", pa.int32()),
            ("token_ids", pa.list_(pa.int32())),
            ("text", pa.string()),
            ("finished", pa.bool_()),
            ("log_p", pa.float64()),
            ("log_q", pa.list_(pa.float64())),
            ("log_q_sample", pa.float64()),
            ("verdict", pa.string()),
            ("score", pa.float64()),
            ("judge_error", pa.string()),
            ("seed", pa.int64()),
        ]
    )


def _table(group: Sequence[BatchResult], names: Sequence[str], schema: Any) -> Any:
    import pyarrow as pa

    columns: dict[str, list[Any]] = {name: [] for name in schema.names}
    for r in group:
        if r.batch.component >= len(names):
            raise StoreError(
                f"batch {r.batch.key}: component {r.batch.component} has no name among {list(names)}"
            )
        for name, value in (
            ("prompt_id", r.batch.prompt_id),
            ("component", names[r.batch.component]),
            ("batch_key", r.batch.key),
            ("round", r.batch.round),
            ("seed", r.batch.seed),
        ):
            columns[name] += [value] * r.n
        columns["draw"] += range(r.n)
        columns["token_ids"] += r.tokens
        # A decoder may leave half of a surrogate pair, which UTF-8 cannot hold.
        columns["text"] += [t.encode("utf-8", "replace").decode("utf-8") for t in r.texts]
        columns["finished"] += r.finished.tolist()
        columns["log_p"] += r.log_q[:, 0].tolist()
        columns["log_q"] += list(r.log_q)
        columns["log_q_sample"] += r.log_q_sample.tolist()
        columns["verdict"] += [Verdict(int(v)).name.lower() for v in r.verdicts]
        columns["score"] += [None if np.isnan(s) else float(s) for s in r.scores]
        columns["judge_error"] += [e or None for e in r.judge_errors]
    return pa.table(columns, schema=schema)


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
