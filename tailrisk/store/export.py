"""What readers get from a log as a table: one row a draw, as parquet.

Works from the log alone, without the lock, on a run that is finished or in progress. Batches are streamed and
become columns at once; draws are neither held in memory nor looked at one by one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tailrisk.errors import StoreError
from tailrisk.records import BatchResult, JudgedTexts, Verdict
from tailrisk.store.answers import BatchReading, second_readings
from tailrisk.store.atomic import replacing
from tailrisk.store.codec import Judgement, OtherJudge, Verdicts, decode, decode_judged
from tailrisk.store.log import read_log

ROW_GROUP = 8192


def final_results(folder: Path, judge: str | None = None) -> Iterator[BatchResult]:
    """Every logged batch in the order of the log, with the last verdicts given to it; of another ``judge`` than the
    run's own, those that it has judged, with what it said last."""
    later = dict(_later_verdicts(folder)) if judge is None else judgements(folder, judge)
    for kind, payload in read_log(folder, {"batch"}):
        result = decode(kind, payload)
        assert isinstance(result, BatchResult)
        judged = later.get(result.batch.key)
        if judged is None and judge is not None:
            continue
        if judged is not None:
            result = replace(
                result, verdicts=judged.verdicts, scores=judged.scores, judge_errors=judged.errors
            )
        yield result


def judged_answers(folder: Path) -> Iterator[tuple[str, list[str], JudgedTexts]]:
    """(prompt id, answers, verdicts) of every logged batch, in the order of the log, and of those that were judged
    again once more with the later verdicts. Token ids and log-probabilities are not looked at."""
    again = dict(_later_verdicts(folder))
    for _, payload in read_log(folder, {"batch"}):
        prompt_id, component, index = payload["batch"][:3]
        texts = payload["texts"]
        yield prompt_id, texts, decode_judged(payload)
        if (judged := again.get(f"{prompt_id}/{component}/{index}")) is not None:
            yield prompt_id, texts, judged


def _later_verdicts(folder: Path) -> Iterator[tuple[str, JudgedTexts]]:
    for kind, payload in read_log(folder, {"verdicts"}):
        record = decode(kind, payload)
        assert isinstance(record, Verdicts)
        yield record.key, record.judged


def judgements(folder: Path, judge: str) -> dict[str, JudgedTexts]:
    """What another judge said last of each batch that it has judged, by the batch's key."""
    said: dict[str, JudgedTexts] = {}
    for kind, payload in read_log(folder, {"judgement"}):
        if payload.get("judge") == judge:
            record = decode(kind, payload)
            assert isinstance(record, Judgement)
            said[record.key] = record.judged
    return said


def other_judges(folder: Path) -> list[OtherJudge]:
    """The judges beside the run's own that have read its draws, in the order in which they came."""
    records = (decode(kind, payload) for kind, payload in read_log(folder, {"judge"}))
    return [record for record in records if isinstance(record, OtherJudge)]


def export_draws(folder: Path, path: Path, names: Sequence[str]) -> int:
    """Writes ``path`` (parquet), one row a draw in the order of the log; returns the number of rows.

    ``names`` are the components' names, the target's first. ``log_q`` is a list in the same order (its
    first element is ``log_p``), ``-inf`` where a component cannot produce the response and NaN where the draw
    was not scored under it. ``score`` is null where the judge gave none; ``seed`` is the batch's. With a strong judge:
    ``strong_verdict``, ``strong_score`` and ``inclusion``, the probability of being asked, null for draws that it
    was not asked about.
    """
    return sum(r.n for r in exported(final_results(folder), path, names, second_readings(folder)))


def exported(
    results: Iterable[BatchResult],
    path: Path,
    names: Sequence[str],
    strong: Mapping[str, BatchReading] | None = None,
) -> Iterator[BatchResult]:
    """Passes ``results`` on and writes them to ``path`` as ``export_draws`` does, so that a log is read once
    for several readers. The file is there when all were taken."""
    import pyarrow.parquet as pq

    schema = _schema(strong=bool(strong))
    with replacing(path) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        for group in _groups(results):
            writer.write_table(_table(group, names, schema, strong or {}))
            yield from group


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


def _schema(*, strong: bool) -> Any:
    import pyarrow as pa

    more = [("strong_verdict", pa.string()), ("strong_score", pa.float64()), ("inclusion", pa.float64())]
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
            *(more if strong else []),
        ]
    )


def _table(
    group: Sequence[BatchResult], names: Sequence[str], schema: Any, strong: Mapping[str, BatchReading]
) -> Any:
    import pyarrow as pa

    for r in group:
        if r.batch.component >= len(names):
            raise StoreError(
                f"batch {r.batch.key}: component {r.batch.component} has no name among {list(names)}"
            )
    sizes = [r.n for r in group]
    of_draw = np.repeat(np.arange(len(group)), sizes)

    def a_batch(values: Sequence[Any], kind: Any) -> Any:
        """A column of which each batch has one value."""
        return pa.array(values, type=kind).take(pa.array(of_draw))

    tokens = [t for r in group for t in r.tokens]
    scores = np.concatenate([r.scores for r in group])
    columns = {
        "prompt_id": a_batch([r.batch.prompt_id for r in group], pa.string()),
        "component": a_batch([names[r.batch.component] for r in group], pa.string()),
        "batch_key": a_batch([r.batch.key for r in group], pa.string()),
        "round": a_batch([r.batch.round for r in group], pa.int32()),
        "draw": np.concatenate([np.arange(n, dtype=np.int32) for n in sizes]),
        "token_ids": _lists([len(t) for t in tokens], np.concatenate(tokens), pa.int32()),
        "text": _strings([t for r in group for t in r.texts]),
        "finished": np.concatenate([r.finished for r in group]),
        "log_p": np.concatenate([r.log_q[:, 0] for r in group]),
        "log_q": _lists(
            np.repeat([r.log_q.shape[1] for r in group], sizes),
            np.concatenate([r.log_q.ravel() for r in group]),
            pa.float64(),
        ),
        "log_q_sample": np.concatenate([r.log_q_sample for r in group]),
        "verdict": pa.array([v.name.lower() for v in Verdict]).take(
            pa.array(np.concatenate([r.verdicts for r in group]))
        ),
        "score": pa.array(scores, mask=np.isnan(scores)),
        "judge_error": pa.array([e or None for r in group for e in r.judge_errors], type=pa.string()),
        "seed": a_batch([r.batch.seed for r in group], pa.int64()),
    }
    if strong:
        nothing = BatchReading(np.empty(0, np.int64), np.empty(0), np.empty(0, np.int8), np.empty(0))
        read = [strong.get(r.batch.key, nothing).spread(r.n) for r in group]
        asked, verdicts, strong_scores, inclusion = (np.concatenate(c) for c in zip(*read, strict=True))
        columns["strong_verdict"] = pa.array([v.name.lower() for v in Verdict]).take(
            pa.array(verdicts, mask=~asked)
        )
        columns["strong_score"] = pa.array(strong_scores, mask=np.isnan(strong_scores))
        columns["inclusion"] = pa.array(inclusion, mask=~asked)
    return pa.table(columns, schema=schema)


def _lists(lengths: Any, values: Any, kind: Any) -> Any:
    import pyarrow as pa

    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values, type=kind))


def _strings(texts: Sequence[str]) -> Any:
    import pyarrow as pa

    try:
        return pa.array(texts, type=pa.string())
    except UnicodeEncodeError:
        # A decoder may leave half of a surrogate pair, which UTF-8 cannot hold.
        return pa.array([t.encode("utf-8", "replace").decode("utf-8") for t in texts], type=pa.string())
