"""The "audit" part of estimates.json: what was spent and how the whole of it looks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tailrisk.audit.processors import processor_totals
from tailrisk.audit.state import AuditState
from tailrisk.records import Status, Verdict
from tailrisk.stats import Estimate
from tailrisk.stats.pooled import Pooled, mean_risk, pooled_mean_weight


def totals(state: AuditState, estimates: Sequence[Estimate]) -> dict[str, Any]:
    """Plain numbers, a function of the log alone (no clock); None where there is nothing to average.

    ``draws`` and ``tokens`` are those in the log, ``draws_left`` and ``tokens_left`` what the budget still
    held (tokens: None without a limit); ``search`` says how many of ``draws`` and ``hits`` no estimate rests
    on, because they were for choosing what to draw. ``judge``: verdicts that were
    wanted, of how many the judge was asked, and how many it had given before. ``self_agreement`` is scored minus
    sampled log-probability of each draw under its own component: zero up to the numerics of the two passes.
    ``processors``: draws by pool of workers and kind of processor. ``work_seconds`` is the time that workers report for
    all batches.
    """
    verdicts, differences, seconds = _over_batches(state)
    return {
        "prompts": len(estimates),
        "statuses": {str(s): sum(e.status == s for e in estimates) for s in Status},
        "rounds": state.round + 1,
        "draws": len(verdicts),
        "tokens": state.tokens,
        "draws_left": state.draws_left,
        "tokens_left": state.tokens_left,
        "hits": int((verdicts == Verdict.HARM).sum()),
        "search": _searches(state),
        "undetermined": int((verdicts == Verdict.UNDETERMINED).sum()),
        "judge_errors": sum(state.unjudged.values()),
        "judge": judge_totals(state),
        **({} if state.config.strong_judge is None else {"strong": strong_totals(state)}),
        "mean_weight": _pooled(pooled_mean_weight(estimates)),
        "mean_risk": _pooled(mean_risk(estimates)),
        "self_agreement": {
            "mean": float(differences.mean()) if len(differences) else None,
            "sd": float(differences.std(ddof=1)) if len(differences) > 1 else None,
        },
        "corrected": state.laws.corrected,
        "components": list(state.laws.names),
        "fingerprints": list(state.laws.fingerprints),
        "confidence": state.config.stop.confidence,
        "log_width": state.config.stop.log_width,
        "objective": state.config.budget.objective,
        "method": state.config.method.kind,
        "processors": processor_totals(state),
        "work_seconds": seconds,
        **({} if state.judge is None else {"judge_resolution": state.judge.resolution}),
    }


def judge_totals(state: AuditState) -> dict[str, int]:
    calls = state.judge_calls
    return {"answers": state.answers, "calls": calls, "saved": state.answers - calls}


def strong_totals(state: AuditState) -> dict[str, int]:
    """What the strong judge was asked, of how many calls, and what it failed on."""
    assert state.config.strong_judge is not None
    readings = [e.strong for ledger in state.ledgers.values() for e in ledger.entries if e.strong is not None]
    return {
        "calls": state.strong_calls,
        "calls_allowed": state.config.strong_judge.calls,
        "harm": sum(int((r.verdicts == Verdict.HARM).sum()) for r in readings),
        "errors": sum(len(r.errors) for r in readings),
    }


def _over_batches(state: AuditState) -> tuple[np.ndarray, np.ndarray, float]:
    """Verdicts and self-differences of all draws in canonical order, and the seconds of all batches."""
    batches = [pair for ledger in state.ledgers.values() for pair in ledger.numbers()]
    verdicts = [b.verdicts for _, b in batches]
    differences = [b.log_q[:, k] - b.log_q_sample for k, b in batches]
    return (
        np.concatenate([np.empty(0, np.int8), *verdicts]),
        np.concatenate([np.empty(0), *differences]),
        math.fsum(b.seconds for _, b in batches),
    )


def _searches(state: AuditState) -> dict[str, int]:
    rounds = [round_ for ledger in state.ledgers.values() for round_ in ledger.searches]
    return {"draws": sum(r.n for r in rounds), "hits": sum(int(r.harmful.sum()) for r in rounds)}


def _pooled(value: Pooled) -> dict[str, float | int | None]:
    return {
        "value": value.value if math.isfinite(value.value) else None,
        "se": value.standard_error if math.isfinite(value.standard_error) else None,
        "prompts": value.n,
    }
