"""A finished batch, and what a judge says of one, <-> JSON, exact in both directions.

Floats are written by ``repr`` and come back bit for bit. In ``log_q`` the value ``-inf`` (a component
that cannot produce the response) is written as null; NaN and +inf are refused. Columns of components that
the batch was not scored under are not written, and read as NaN. In ``scores`` NaN (no
score) is written as null and an infinity as the string "inf" or "-inf".
"""

from __future__ import annotations

import itertools
import json
import math
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tailrisk.errors import StoreError
from tailrisk.records import Batch, BatchResult, FloatArray, JudgedTexts, cut
from tailrisk.store.plancodec import decode_batch, encode_batch

_ENCODER = json.JSONEncoder(separators=(",", ":"))
_STRICT = json.JSONEncoder(separators=(",", ":"), allow_nan=False)


def draws_crc(result: BatchResult) -> int:
    """Checksum of what the seed alone determines: tokens, ends, log-probabilities; not the judge's view."""
    return _crc(*_draw_texts(result))


def _draw_texts(r: BatchResult) -> tuple[str, str, str, str]:
    """JSON texts of tokens, ends, scored and sampled log-probabilities."""
    return (
        _ENCODER.encode([t.tolist() for t in r.tokens]),
        _ENCODER.encode(r.finished.tolist()),
        _ENCODER.encode(_log_qs(_scored(r))),
        _ENCODER.encode(r.log_q_sample.tolist()),
    )


def _crc(tokens: str, finished: str, log_q: str, sample: str) -> int:
    return zlib.crc32(f"[{tokens},{finished},{log_q},{sample}]".encode())


def encode_result(r: BatchResult) -> tuple[str, int]:
    """A batch's payload as JSON text, and ``draws_crc``: what is long is put into words once for both."""
    _check_result(r)
    tokens, finished, log_q, sample = _draw_texts(r)
    crc = _crc(tokens, finished, log_q, sample)
    judged = encode_judged(r.batch.key, JudgedTexts(r.verdicts, r.scores, r.judge_errors, r.judge_calls))
    columns = "" if r.batch.components is None else f'"columns":{r.log_q.shape[1]},'
    try:
        batch, texts = _STRICT.encode(encode_batch(r.batch)), _STRICT.encode(list(r.texts))
        rest = _STRICT.encode({**judged, "seconds": float(r.seconds), "worker": r.worker, "crc": crc})
    except (ValueError, TypeError) as error:
        raise StoreError(f"batch {r.batch.key} is not plain JSON and is not logged: {error}") from error
    ends = _ENCODER.encode(r.finished.astype(np.int64).tolist())
    text = (
        f'{{"batch":{batch},"tokens":{tokens},"texts":{texts},"finished":{ends},"log_q":{log_q},{columns}'
        f'"log_q_sample":{sample},{rest[1:]}'
    )
    return text, crc


def _check_result(r: BatchResult) -> None:
    n, key = r.batch.size, r.batch.key
    lengths = {
        "texts": len(r.texts),
        "tokens": len(r.tokens),
        "finished": len(r.finished),
        "log_q": len(r.log_q),
        "log_q_sample": len(r.log_q_sample),
        "verdicts": len(r.verdicts),
        "scores": len(r.scores),
        "judge_errors": len(r.judge_errors),
    }
    wrong = {name: length for name, length in lengths.items() if length != n}
    if wrong or r.log_q.ndim != 2:
        raise StoreError(f"batch {key}: planned with {n} draws, the result holds {wrong or r.log_q.shape}")
    scored = _scored(r)
    if not (scored < np.inf).all():
        raise StoreError(f"batch {key}: log_q holds NaN or +inf and is not logged")
    if r.batch.components is not None and (~np.isnan(r.log_q)).sum() > scored.size:
        raise StoreError(
            f"batch {key}: log_q holds values of components it was not scored under and is not logged"
        )
    if not np.isfinite(r.log_q_sample).all():
        raise StoreError(f"batch {key}: log_q_sample is not finite everywhere and is not logged")


def _scored(r: BatchResult) -> FloatArray:
    """[n, S] the columns of the components that the batch was scored under."""
    return r.log_q if r.batch.components is None else r.log_q[:, list(r.batch.components)]


def decode_result(p: Mapping[str, Any]) -> BatchResult:
    batch = decode_batch(p["batch"])
    judged = decode_judged(p)
    return BatchResult(
        batch=batch,
        tokens=_read_tokens(p["tokens"]),
        texts=list(p["texts"]),
        finished=np.asarray(p["finished"], dtype=np.bool_),
        log_q=_read_log_q(p, batch),
        log_q_sample=np.asarray(p["log_q_sample"], dtype=np.float64),
        verdicts=judged.verdicts,
        scores=judged.scores,
        judge_errors=judged.errors,
        seconds=float(p["seconds"]),
        worker=p["worker"],
        judge_calls=judged.calls,
    )


def encode_judged(key: str, judged: JudgedTexts) -> dict[str, Any]:
    if not len(judged.verdicts) == len(judged.scores) == len(judged.errors):
        raise StoreError(f"batch {key}: verdicts, scores and errors differ in number and are not logged")
    verdicts = np.asarray(judged.verdicts).tolist()
    if not set(verdicts) <= {0, 1, 2}:
        raise StoreError(
            f"batch {key}: a verdict is neither safe, harm nor undetermined: {sorted(set(verdicts))}"
        )
    return {
        "verdicts": verdicts,
        "scores": [_score(s) for s in np.asarray(judged.scores, dtype=np.float64).tolist()],
        "errors": list(judged.errors),
        # Only where some were judged before: what has no cache is logged as it always was.
        **({} if judged.calls in (None, len(verdicts)) else {"calls": int(judged.calls)}),
    }


def decode_judged(p: Mapping[str, Any]) -> JudgedTexts:
    scores: FloatArray = np.asarray(
        [math.nan if s is None else float(s) for s in p["scores"]], dtype=np.float64
    )
    return JudgedTexts(np.asarray(p["verdicts"], dtype=np.int8), scores, list(p["errors"]), p.get("calls"))


def _log_qs(log_q: FloatArray) -> list[list[float | None]]:
    rows = log_q.tolist()
    if np.isfinite(log_q).all():
        return rows
    return [[None if value == -math.inf else value for value in row] for row in rows]


def _read_log_q(p: Mapping[str, Any], batch: Batch) -> FloatArray:
    """[n, K] of a batch's payload."""
    # None is read as NaN, which is never written.
    log_q = np.asarray(p["log_q"], dtype=np.float64).reshape(batch.size, -1)
    if (none := np.isnan(log_q)).any():
        log_q[none] = -np.inf
    if batch.components is not None:
        scored, log_q = log_q, np.full((batch.size, p["columns"]), np.nan)
        log_q[:, list(batch.components)] = scored
    return log_q


def _read_tokens(rows: list[list[int]]) -> list[NDArray[np.int32]]:
    flat = np.fromiter(itertools.chain.from_iterable(rows), dtype=np.int32)
    return cut(flat, [len(row) for row in rows])


def _score(value: float) -> float | str | None:
    if math.isnan(value):
        return None
    return value if math.isfinite(value) else repr(value)
