"""Harmful draws of run folders, as what a proposal is fitted to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tailrisk.audit.drawweights import DrawWeights, draw_scales
from tailrisk.audit.state import AuditState
from tailrisk.records import PromptHits, Verdict
from tailrisk.stats.diagnostics import effective_size
from tailrisk.store import final_results


def harvest(folder: Path, state: AuditState) -> dict[str, PromptHits]:
    """The harmful draws of every prompt that has any which the target can produce, in the order of the log.

    ``state`` is what the folder's log says. Draws of mass 0 are left out, for they have no part in an estimate.
    """
    weights, scales = DrawWeights(state), draw_scales(state)
    tokens: dict[str, list[NDArray[np.int32]]] = {}
    rows: dict[str, list[tuple[float, float]]] = {}
    for result in final_results(folder):
        prompt = result.batch.prompt_id
        scale = scales.get((prompt, result.batch.round), 0.0)
        hits = np.flatnonzero((result.verdicts == Verdict.HARM) & np.isfinite(result.log_q[:, 0]))
        if scale <= 0.0 or not hits.size:
            continue
        log_parts = weights.logarithms(result)[hits] + np.log(scale)
        tokens.setdefault(prompt, []).extend(result.tokens[i] for i in hits)
        rows.setdefault(prompt, []).extend(zip(log_parts, result.log_q[hits, 0], strict=True))
    found = {}
    for prompt, ledger in state.ledgers.items():
        if prompt in rows:
            log_parts, log_p = np.array(rows[prompt]).T
            found[prompt] = PromptHits(ledger.prompt, tokens[prompt], log_parts, log_p)
    return found


def joined(audits: Sequence[Mapping[str, PromptHits]]) -> dict[str, PromptHits]:
    """Hits of several audits of the same prompts as those of one, each audit counting by its effective hits."""
    found: dict[str, PromptHits] = {}
    for prompt in dict.fromkeys(i for audit in audits for i in audit):
        parts = [audit[prompt] for audit in audits if prompt in audit]
        worth = np.array([effective(h) for h in parts])
        log_share = np.log(worth / worth.sum())
        log_parts = np.concatenate([h.log_parts + s for h, s in zip(parts, log_share, strict=True)])
        found[prompt] = PromptHits(
            prompt=parts[0].prompt,
            tokens=[t for h in parts for t in h.tokens],
            log_parts=log_parts,
            log_p=np.concatenate([h.log_p for h in parts]),
        )
    return found


def effective(hits: PromptHits) -> float:
    """The effective number of hits."""
    return effective_size(np.exp(hits.log_parts - hits.log_parts.max()))
