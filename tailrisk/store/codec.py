"""Records of the log <-> plain JSON payloads, by their kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tailrisk.errors import StoreError
from tailrisk.records import BatchFailure, BatchResult, JudgedTexts, RoundPlan
from tailrisk.store.asked import Asked, Told, decode_asked, decode_told, encode_asked, encode_told
from tailrisk.store.batchcodec import decode_judged, decode_result, encode_judged, encode_result
from tailrisk.store.plancodec import decode_batch, decode_plan, encode_batch, encode_plan

Payload = dict[str, Any]


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
            return "plan", encode_plan(record)
        case BatchResult():
            return "batch", encode_result(record)[0]
        case BatchFailure():
            return "failure", {"batch": encode_batch(record.batch), "reason": record.reason}
        case Verdicts():
            return "verdicts", {"key": record.key, **encode_judged(record.key, record.judged)}
        case OtherJudge(name=name, digest=digest):
            return "judge", {"name": name, "digest": digest, "settings": record.settings}
        case Judgement(judge=name, digest=digest, key=key):
            tag = {"judge": name, "digest": digest, "key": key}
            return "judgement", {**tag, **encode_judged(key, record.judged)}
        case Asked():
            return "asked", encode_asked(record)
        case Told():
            key = f"{record.prompt_id}, {record.reader} of round {record.round}"
            return "told", encode_told(record, encode_judged(key, record.judged))
        case Note():
            return "note", {"text": record.text, "data": record.data}


def decode(kind: str, payload: Mapping[str, Any]) -> Record:
    """The record of a (kind, payload) pair; ``StoreError`` for one that this version cannot read."""
    try:
        match kind:
            case "plan":
                return decode_plan(payload)
            case "batch":
                return decode_result(payload)
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
