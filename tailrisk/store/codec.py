"""Records of the log <-> plain JSON payloads, exact in both directions.

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
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tailrisk.errors import StoreError
from tailrisk.records import (
    Batch,
    BatchFailure,
    BatchResult,
    FloatArray,
    JudgedTexts,
    PromptPlan,
    RoundPlan,
    cut,
)
from tailrisk.store.asked import Asked, Told, decode_asked, decode_told, encode_asked, encode_told

Payload = dict[str, Any]
_ENCODER = json.JSONEncoder(separators=(",", ":"))
_STRICT = json.JSONEncoder(separators=(",", ":"), allow_nan=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdicts:
    """A later judgement of a whole batch that is already in the log; the last one counts."""

    key: str
    judged: JudgedTexts


@dataclass(frozen=True, kw_only=True, slots=True)
class OtherJudge:
    """A judge beside the run's own that reads its draws: plain settings, and the digest that says which it is."""

    name: str
    digest: str
    settings: dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Judgement:
    """What another judge says of a whole batch that is in the log; its last one counts, for it alone."""

    judge: str
    digest: str
    key: str
    judged: JudgedTexts


@dataclass(frozen=True, kw_only=True, slots=True)
class Note:
    """Something worth keeping that no estimate depends on, such as a late twin of a batch."""

    text: str
    data: dict[str, Any] = field(default_factory=dict)


Record = RoundPlan | BatchResult | BatchFailure | Verdicts | OtherJudge | Judgement | Asked | Told | Note


def encode(record: Record) -> tuple[str, Payload | str]:
    """(kind, payload) of a record, a batch's as its JSON text; ``StoreError`` where it holds what the log must not
    hold."""
    match record:
        case RoundPlan():
            return "plan", _encode_plan(record)
        case BatchResult():
            return "batch", encode_result(record)[0]
        case BatchFailure():
            return "failure", {"batch": _encode_batch(record.batch), "reason": record.reason}
        case Verdicts():
            return "verdicts", {"key": record.key, **_encode_judged(record.key, record.judged)}
        case OtherJudge(name=name, digest=digest):
            return "judge", {"name": name, "digest": digest, "settings": record.settings}
        case Judgement(judge=name, digest=digest, key=key):
            tag = {"judge": name, "digest": digest, "key": key}
            return "judgement", {**tag, **_encode_judged(key, record.judged)}
        case Asked():
            return "asked", encode_asked(record)
        case Told():
            key = f"{record.prompt_id}, {record.reader} of round {record.round}"
            return "told", encode_told(record, _encode_judged(key, record.judged))
        case Note():
            return "note", {"text": record.text, "data": record.data}


def decode(kind: str, payload: Mapping[str, Any]) -> Record:
    """The record of a (kind, payload) pair; ``StoreError`` for one that this version cannot read."""
    try:
        match kind:
            case "plan":
                return _decode_plan(payload)
            case "batch":
                return _decode_result(payload)
            case "failure":
                return BatchFailure(batch=decode_batch(payload["batch"]), reason=payload["reason"])
            case "verdicts":
                return Verdicts(key=payload["key"], judged=decode_judged(payload))
            case "judge":
                return OtherJudge(
                    name=payload["name"], digest=payload["digest"], settings=payload["settings"]
                )
            case "judgement":
                return Judgement(
                    judge=payload["judge"],
                    digest=payload["digest"],
                    key=payload["key"],
                    judged=decode_judged(payload),
                )
            case "asked":
                return decode_asked(payload)
            case "told":
                return decode_told(payload, decode_judged(payload))
            case "note":
                return Note(text=payload["text"], data=payload["data"])
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(
            f"a log record of kind {kind!r} cannot be read ({type(error).__name__}: {error}); it was written "
            "by another version of tailrisk: use that version, or another run.name"
        ) from error
    raise StoreError(f"unknown kind {kind!r} of log record: written by a newer version of tailrisk")


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


def _encode_plan(plan: RoundPlan) -> Payload:
    return {
        "round": plan.round,
        "prompts": [_encode_prompt_plan(p) for p in plan.prompts],
        "batches": [_encode_batch(b) for b in plan.batches],
    }


def _decode_plan(payload: Mapping[str, Any]) -> RoundPlan:
    return RoundPlan(
        round=payload["round"],
        prompts=tuple(_decode_prompt_plan(p) for p in payload["prompts"]),
        batches=tuple(decode_batch(b) for b in payload["batches"]),
    )


def _encode_prompt_plan(p: PromptPlan) -> list[Any]:
    return [p.prompt_id, list(p.counts), p.mass, p.final, *_some(p.components, p.faded)]


def _decode_prompt_plan(row: list[Any]) -> PromptPlan:
    prompt_id, counts, mass, final, *some = row
    return PromptPlan(
        prompt_id=prompt_id,
        counts=tuple(counts),
        mass=float(mass),
        final=final,
        components=_components(some),
        faded=tuple(map(float, some[1])) if len(some) > 1 else None,
    )


def _encode_batch(b: Batch) -> list[Any]:
    return [b.prompt_id, b.component, b.index, b.round, b.size, b.seed, *_some(b.components)]


def decode_batch(row: list[Any]) -> Batch:
    prompt_id, component, index, round_, size, seed, *some = row
    return Batch(
        prompt_id=prompt_id,
        component=component,
        index=index,
        round=round_,
        size=size,
        seed=seed,
        components=_components(some),
    )


def _some(components: tuple[int, ...] | None, faded: tuple[float, ...] | None = None) -> list[Any]:
    """What a row ends with: nothing where all components count and none has faded."""
    ends = [None if components is None else list(components), None if faded is None else list(faded)]
    while ends and ends[-1] is None:
        ends.pop()
    return ends


def _components(some: list[Any]) -> tuple[int, ...] | None:
    return tuple(some[0]) if some and some[0] is not None else None


def encode_result(r: BatchResult) -> tuple[str, int]:
    """A batch's payload as JSON text, and ``draws_crc``: what is long is put into words once for both."""
    _check_result(r)
    tokens, finished, log_q, sample = _draw_texts(r)
    crc = _crc(tokens, finished, log_q, sample)
    judged = _encode_judged(r.batch.key, JudgedTexts(r.verdicts, r.scores, r.judge_errors, r.judge_calls))
    columns = "" if r.batch.components is None else f'"columns":{r.log_q.shape[1]},'
    try:
        batch, texts = _STRICT.encode(_encode_batch(r.batch)), _STRICT.encode(list(r.texts))
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


def _decode_result(p: Mapping[str, Any]) -> BatchResult:
    batch = decode_batch(p["batch"])
    judged = decode_judged(p)
    return BatchResult(
        batch=batch,
        tokens=_read_tokens(p["tokens"]),
        texts=list(p["texts"]),
        finished=np.asarray(p["finished"], dtype=np.bool_),
        log_q=read_log_q(p, batch),
        log_q_sample=np.asarray(p["log_q_sample"], dtype=np.float64),
        verdicts=judged.verdicts,
        scores=judged.scores,
        judge_errors=judged.errors,
        seconds=float(p["seconds"]),
        worker=p["worker"],
        judge_calls=judged.calls,
    )


def _encode_judged(key: str, judged: JudgedTexts) -> Payload:
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


def read_log_q(p: Mapping[str, Any], batch: Batch) -> FloatArray:
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
