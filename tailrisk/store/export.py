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
from tailrisk.store import columns
from tailrisk.store.answers import BatchReading, second_readings
from tailrisk.store.atomic import replacing
from tailrisk.store.batchcodec import decode_judged
from tailrisk.store.checkedlog import CheckedLog
from tailrisk.store.codec import Judgement, OtherJudge, Verdicts, decode
from tailrisk.store.numbers import LoggedNumbers, numbers_of, results_of

ROW_GROUP = 8192


def final_results(source: Path | CheckedLog, judge: str | None = None) -> Iterator[BatchResult]:
    """Every logged batch in the order of the log, with the last verdicts given to it; of another ``judge`` than the
    run's own, those that it has judged, with what it said last."""
    log = CheckedLog.of(source)
    later = dict(later_verdicts(log)) if judge is None else judgements(log, judge)
    for result in results_of(log.bodies("batch")):
        judged = later.get(result.batch.key)
        if judged is None and judge is not None:
            continue
        if judged is not None:
            result = replace(
                result, verdicts=judged.verdicts, scores=judged.scores, judge_errors=judged.errors
            )
        yield result


def final_numbers(source: Path | CheckedLog) -> Iterator[LoggedNumbers]:
    """Every logged batch in the order of the log, with the last verdicts given to it; of the texts, nothing."""
    log = CheckedLog.of(source)
    later = dict(later_verdicts(log))
    for result in numbers_of(log.bodies("batch")):
        judged = later.get(result.batch.key)
        if judged is not None:
            result.verdicts, result.scores, result.judge_errors = (
                judged.verdicts,
                judged.scores,
                judged.errors,
            )
        yield result


def judged_answers(folder: Path) -> Iterator[tuple[str, list[str], JudgedTexts]]:
    """(prompt id, answers, verdicts) of every logged batch, in the order of the log, and of those that were judged
    again once more with the later verdicts. Token ids and log-probabilities are not looked at."""
    log = CheckedLog(folder)
    again = dict(later_verdicts(log))
    for _, payload in log.records({"batch"}):
        prompt_id, component, index = payload["batch"][:3]
        texts = payload["texts"]
        yield prompt_id, texts, decode_judged(payload)
        if (judged := again.get(f"{prompt_id}/{component}/{index}")) is not None:
            yield prompt_id, texts, judged


def later_verdicts(log: CheckedLog) -> Iterator[tuple[str, JudgedTexts]]:
    """By batch key what the run's own judge said again, in the order in which it did."""
    for kind, payload in log.records({"verdicts"}):
        record = decode(kind, payload)
        assert isinstance(record, Verdicts)
        yield record.key, record.judged


def judgements(source: Path | CheckedLog, judge: str) -> dict[str, JudgedTexts]:
    """What another judge said last of each batch that it has judged, by the batch's key."""
    said: dict[str, JudgedTexts] = {}
    for kind, payload in CheckedLog.of(source).records({"judgement"}):
        if payload.get("judge") == judge:
            record = decode(kind, payload)
            assert isinstance(record, Judgement)
            said[record.key] = record.judged
    return said


def other_judges(source: Path | CheckedLog) -> list[OtherJudge]:
    """The judges beside the run's own that have read its draws, in the order in which they came."""
    records = (decode(kind, payload) for kind, payload in CheckedLog.of(source).records({"judge"}))
    return [record for record in records if isinstance(record, OtherJudge)]


def export_draws(folder: Path, path: Path, names: Sequence[str]) -> int:
    """Writes ``path`` (parquet), one row a draw in the order of the log; returns the number of rows.

    ``names`` are the components' names, the target's first. ``log_q`` is a list in the same order (its
    first element is ``log_p``), ``-inf`` where a component cannot produce the response and NaN where the draw
    was not scored under it. ``score`` is null where the judge gave none; ``seed`` is the batch's. With a strong judge:
    ``strong_verdict``, ``strong_score`` and ``inclusion``, the probability of being asked, null for draws that it
    was not asked about.
    """
    log = CheckedLog(folder)
    return sum(r.n for r in exported(final_results(log), path, names, second_readings(log)))


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
    tokens = [t for r in group for t in r.tokens]
    scores = np.concatenate([r.scores for r in group])
    errors = [e for r in group for e in r.judge_errors]
    verdict_names = [v.name.lower() for v in Verdict]
    listed = [
        columns.chosen([r.batch.prompt_id for r in group], of_draw),
        columns.chosen(names, np.repeat([r.batch.component for r in group], sizes)),
        columns.chosen([r.batch.key for r in group], of_draw),
        columns.numbers(np.repeat(np.array([r.batch.round for r in group], dtype=np.int32), sizes)),
        columns.numbers(np.concatenate([np.arange(n, dtype=np.int32) for n in sizes])),
        columns.lists(list(map(len, tokens)), np.concatenate(tokens)),
        columns.strings([t for r in group for t in r.texts]),
        columns.booleans(np.concatenate([r.finished for r in group])),
        columns.numbers(np.concatenate([r.log_q[:, 0] for r in group])),
        columns.lists(
            np.repeat([r.log_q.shape[1] for r in group], sizes),
            np.concatenate([r.log_q.ravel() for r in group]),
        ),
        columns.numbers(np.concatenate([r.log_q_sample for r in group])),
        columns.chosen(verdict_names, np.concatenate([r.verdicts for r in group])),
        columns.numbers(scores, ~np.isnan(scores)),
        columns.strings(errors, np.array(list(map(bool, errors)))),
        columns.numbers(np.repeat(np.array([r.batch.seed for r in group], dtype=np.int64), sizes)),
    ]
    if strong:
        nothing = BatchReading(np.empty(0, np.int64), np.empty(0), np.empty(0, np.int8), np.empty(0))
        read = [strong.get(r.batch.key, nothing).spread(r.n) for r in group]
        asked, verdicts, strong_scores, inclusion = (np.concatenate(c) for c in zip(*read, strict=True))
        listed += [
            columns.chosen(verdict_names, verdicts, asked),
            columns.numbers(strong_scores, ~np.isnan(strong_scores)),
            columns.numbers(inclusion, asked),
        ]
    return pa.Table.from_arrays(listed, schema=schema)
