"""What an audit leaves in the run folder beside its log: estimates.json, draws.parquet, hits.jsonl.

All of it can be written again from the log.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tailrisk.audit.drawweights import DrawWeights, part_scales
from tailrisk.audit.state import AuditState
from tailrisk.records import BatchResult
from tailrisk.stats import Estimate
from tailrisk.store import exported, final_results, hit_rows, write_hits, write_json_atomic


def write_results(
    folder: Path,
    state: AuditState,
    estimates: Sequence[Estimate],
    totals: dict[str, Any],
    search: dict[str, Any] | None = None,
) -> None:
    """``totals`` and ``search`` are parts of estimates.json, the second left out where there is none."""
    parts = {"audit": totals, "estimates": (e.to_json() for e in estimates)}
    write_json_atomic(folder / "estimates.json", parts if search is None else {**parts, "search": search})
    results = exported(final_results(folder), folder / "draws.parquet", state.laws.names)
    write_hits(folder, weighted_hits(results, state, estimates))


def weighted_hits(
    results: Iterable[BatchResult], state: AuditState, estimates: Sequence[Estimate]
) -> Iterator[dict[str, Any]]:
    """Rows of hits.jsonl: ``weight`` is p over the mixture the draw came from, ``share`` the part of its
    prompt's estimate that it carries (0 in a search, None for a prompt without an estimate)."""
    scales = part_scales(state, estimates)
    for row in hit_rows(results, DrawWeights(state), state.laws.names):
        scale = scales.get((row["prompt_id"], row["round"]))
        row["share"] = None if scale is None else row["weight"] * scale
        yield row
