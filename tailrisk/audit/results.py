"""What an audit leaves in the run folder beside its log: estimates.json, draws.parquet, hits.jsonl.

All of it can be written again from the log.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tailrisk.audit.drawweights import DrawWeights, part_scales
from tailrisk.audit.groups import groups_record
from tailrisk.audit.review import review_record
from tailrisk.audit.state import AuditState
from tailrisk.records import BatchResult, Verdict
from tailrisk.stats import Estimate
from tailrisk.store import (
    BatchReading,
    exported,
    final_results,
    hit_rows,
    second_readings,
    write_hits,
    write_json_atomic,
)


def write_results(
    folder: Path,
    state: AuditState,
    estimates: Sequence[Estimate],
    totals: dict[str, Any],
    search: dict[str, Any] | None = None,
) -> None:
    """``totals`` and ``search`` are parts of estimates.json, the second left out where there is none; so are the parts
    with the groups, and with the estimates after a review."""
    parts = {"audit": totals, "estimates": (e.to_json() for e in estimates)}
    further = {"search": search, "groups": groups_record(state, estimates), "review": review_record(state)}
    more = {name: part for name, part in further.items() if part is not None}
    write_json_atomic(folder / "estimates.json", {**parts, **more})
    strong = {} if state.config.strong_judge is None else second_readings(folder)
    results = exported(final_results(folder), folder / "draws.parquet", state.laws.names, strong)
    write_hits(folder, weighted_hits(results, state, estimates, strong))


def weighted_hits(
    results: Iterable[BatchResult],
    state: AuditState,
    estimates: Sequence[Estimate],
    strong: Mapping[str, BatchReading] | None = None,
) -> Iterator[dict[str, Any]]:
    """Rows of hits.jsonl: ``weight`` is p over the mixture the draw came from, ``share`` the part of its
    prompt's estimate that it carries (0 in a search, None for a prompt without an estimate).

    Where there is a strong judge: also what it alone found, with ``strong_verdict`` (None where it was not asked) and
    ``inclusion``; the share of what it calls harm is for the 1 / ``inclusion`` draws that it stands for, of all else 0.
    """
    scales, strong = part_scales(state, estimates), strong or {}
    for row in hit_rows(_with_found(results, strong), DrawWeights(state), state.laws.names):
        scale = scales.get((row["prompt_id"], row["round"]))
        row["share"] = None if scale is None else row["weight"] * scale
        if state.config.strong_judge is not None:
            _add_strong(row, strong.get(row["batch"]))
        yield row


def _with_found(results: Iterable[BatchResult], strong: Mapping[str, BatchReading]) -> Iterator[BatchResult]:
    """Results in which what the strong judge calls harm is harm, beside what the judge flagged."""
    for result in results:
        read = strong.get(result.batch.key)
        if read is not None and (found := read.draws[read.verdicts == Verdict.HARM]).size:
            verdicts = result.verdicts.copy()
            verdicts[found] = int(Verdict.HARM)
            result = replace(result, verdicts=verdicts)
        yield result


def _add_strong(row: dict[str, Any], read: BatchReading | None) -> None:
    place = np.flatnonzero(read.draws == row["draw"]) if read is not None else np.empty(0, dtype=np.int64)
    row["strong_verdict"] = row["inclusion"] = None
    if read is not None and place.size:
        row["strong_verdict"] = Verdict(int(read.verdicts[place[0]])).name.lower()
        row["inclusion"] = float(read.inclusion[place[0]])
    if row["share"] is not None:
        row["share"] = row["share"] / row["inclusion"] if row["strong_verdict"] == "harm" else 0.0
