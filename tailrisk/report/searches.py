"""The search's part of estimates.json as rows of the report: what each pool of prompts found and goes on with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tailrisk.report.clean import visible

BASIS = {
    "own": "the cells nearest to the hits",
    "few": "few hits: the nearest cell, and the strongest of the other proposals",
    "none": "no hits: the strongest cells",
}


@dataclass(frozen=True)
class SearchRow:
    """``pool``: which prompts chose together; ``prompts``: how many go on with the choice; ``gain``: nats by which
    the chosen mixture is nearer to the harmful answers than the target alone, None without hits."""

    pool: str
    prompts: int
    hits: int
    ess: float
    chosen: str
    why: str
    gain: float | None


def search_rows(record: Mapping[str, Any] | None) -> list[SearchRow]:
    """Rows of the pools in the order of the record; none for a run without a search."""
    return [_row(pool) for pool in (record or {}).get("pools", ())]


def _row(pool: Mapping[str, Any]) -> SearchRow:
    names: Sequence[str] = [name for name in pool["chosen"] if name != "target"]
    return SearchRow(
        pool=visible(str(pool["pool"])),
        prompts=len(pool["prompts"]),
        hits=int(pool["hits"]),
        ess=float(pool["ess"]),
        chosen=visible(", ".join(names)),
        why=BASIS.get(str(pool["basis"]), ""),
        gain=pool["gain"],
    )
