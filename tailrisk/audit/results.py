"""What an audit leaves in the run folder beside its log: estimates.json, draws.parquet, hits.jsonl.

All of it can be written again from the log.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tailrisk.audit.protocols import LawCard
from tailrisk.audit.state import AuditState
from tailrisk.records import BatchResult, FloatArray
from tailrisk.stats import Estimate, mixture_log_weights
from tailrisk.store import export_draws, hit_rows, write_hits, write_json_atomic


def write_results(
    folder: Path,
    state: AuditState,
    estimates: Sequence[Estimate],
    totals: dict[str, Any],
    search: dict[str, Any] | None = None,
) -> None:
    """``totals`` and ``search`` are parts of estimates.json, the second left out where there is none."""
    parts = {"audit": totals, "estimates": [e.to_json() for e in estimates]}
    write_json_atomic(folder / "estimates.json", parts if search is None else {**parts, "search": search})
    export_draws(folder, folder / "draws.parquet", state.laws.names)
    write_hits(folder, weighted_hits(folder, state, estimates))


def weighted_hits(folder: Path, state: AuditState, estimates: Sequence[Estimate]) -> Iterator[dict[str, Any]]:
    """Rows of hits.jsonl: ``weight`` is p over the mixture the draw came from, ``share`` the part of its
    prompt's estimate that it carries (0 in a search, None for a prompt without an estimate)."""
    scales = _scales(state, estimates)
    for row in hit_rows(folder, _Weights(state), state.laws.names):
        scale = scales.get((row["prompt_id"], row["round"]))
        row["share"] = None if scale is None else row["weight"] * scale
        yield row


class _Weights:
    """The weights of a batch's draws, by the draws its round expected for its prompt."""

    def __init__(self, state: AuditState) -> None:
        self._laws: LawCard = state.laws
        self._expected = {
            (prompt_id, entry.round): entry.plan.expected
            for prompt_id, ledger in state.ledgers.items()
            for entry in ledger.entries
        }

    def __call__(self, result: BatchResult) -> FloatArray:
        batch = result.batch
        log_w = mixture_log_weights(result.log_q, self._expected[batch.prompt_id, batch.round])
        if self._laws.corrected:
            log_w = log_w + result.log_q[:, batch.component] - result.log_q_sample
        return np.exp(log_w)


def _scales(state: AuditState, estimates: Sequence[Estimate]) -> dict[tuple[str, int], float]:
    """(prompt, round) -> what a weight of one adds to the estimate, as a part of the estimate."""
    scales = {}
    for (prompt_id, ledger), estimate in zip(state.ledgers.items(), estimates, strict=True):
        used = [e for e in ledger.entries if e.complete]
        mass = sum(e.plan.mass for e in used)
        if estimate.estimate > 0:
            for entry in used:
                scales[prompt_id, entry.round] = (
                    entry.plan.mass / mass / float(entry.plan.expected.sum()) / estimate.estimate
                )
    return scales
