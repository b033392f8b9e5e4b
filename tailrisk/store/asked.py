"""Records of a second reader of some draws: who was to be read with which probability, and what was said.

A reader is the strong judge, or the people who review a run. What is asked is logged before it is judged, so that a
run which ends in between goes on with the same sample.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from tailrisk.errors import StoreError
from tailrisk.records import JudgedTexts

Reader = Literal["strong", "review"]
READERS: tuple[Reader, ...] = ("strong", "review")


class Sample(NamedTuple):
    """Of a prompt's draws in a round, by (component, batch, draw): ``rows`` [m] are read, each chosen with probability
    ``inclusion`` [m]."""

    prompt_id: str
    rows: tuple[int, ...]
    inclusion: tuple[float, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """The samples of all prompts of a round. ``confirmed``: what flagged draws are predicted to be, by the cells of
    ``tailrisk.stats.twostage.weight_bins``. ``least``: below all inclusion probabilities; 0 where none was fixed in
    advance."""

    reader: Reader
    round: int
    confirmed: tuple[float, ...]
    least: float
    samples: tuple[Sample, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """Verdicts on some ``rows`` of a sample; later ones replace earlier ones."""

    reader: Reader
    round: int
    prompt_id: str
    rows: tuple[int, ...]
    judged: JudgedTexts


def encode_asked(record: Asked) -> dict[str, Any]:
    for sample in record.samples:
        if not all(0.0 < pi <= 1.0 for pi in sample.inclusion) or len(sample.rows) != len(sample.inclusion):
            raise StoreError(f"prompt {sample.prompt_id!r}: not a sample with probabilities, and not logged")
    return {
        "reader": record.reader,
        "round": record.round,
        "confirmed": list(record.confirmed),
        "least": record.least,
        "samples": [[s.prompt_id, list(s.rows), list(s.inclusion)] for s in record.samples],
    }


def decode_asked(payload: Mapping[str, Any]) -> Asked:
    return Asked(
        reader=payload["reader"],
        round=payload["round"],
        confirmed=tuple(map(float, payload["confirmed"])),
        least=float(payload["least"]),
        samples=tuple(Sample(i, tuple(rows), tuple(map(float, pi))) for i, rows, pi in payload["samples"]),
    )


def encode_told(record: Told, judged: dict[str, Any]) -> dict[str, Any]:
    return {
        "reader": record.reader,
        "round": record.round,
        "prompt_id": record.prompt_id,
        "rows": list(record.rows),
        **judged,
    }


def decode_told(payload: Mapping[str, Any], judged: JudgedTexts) -> Told:
    return Told(
        reader=payload["reader"],
        round=payload["round"],
        prompt_id=payload["prompt_id"],
        rows=tuple(payload["rows"]),
        judged=judged,
    )
