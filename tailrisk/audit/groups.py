"""The "groups" part of estimates.json: how far harmless rewordings of a prompt move its probability.

Groups of at least two prompts. Where the judge's error is known, spreads are still those of what is judged harm. False
positives add the same to every member, so where they matter the spread of what is harm is larger.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tailrisk.audit.state import AuditState
from tailrisk.stats import Estimate, certify
from tailrisk.stats.spread import Group, base_of, group, kind_effects, member


def groups_record(state: AuditState, estimates: Sequence[Estimate]) -> dict[str, Any] | None:
    """None where no group has two members. Numbers that are not known are None."""
    grouped: dict[str, list[Estimate]] = {}
    for estimate in estimates:
        if estimate.group is not None:
            grouped.setdefault(estimate.group, []).append(estimate)
    confidence = state.config.stop.confidence
    found = [
        _group(state, name, members, confidence) for name, members in grouped.items() if len(members) > 1
    ]
    if not found:
        return None
    effects = kind_effects([g.members for g in found], confidence=confidence)
    return {
        "confidence": confidence,
        "groups": [_record(g) for g in found],
        "kinds": [e._asdict() for e in effects],
    }


def _group(state: AuditState, name: str, estimates: Sequence[Estimate], confidence: float) -> Group:
    def certified(prompt_id: str) -> tuple[float, float]:
        ledger = state.ledgers[prompt_id]
        if ledger.failed is not None or not ledger.rounds:
            return (0.0, 1.0)
        alpha = (1 - confidence) / len(estimates)
        return certify(ledger.rounds, alpha=alpha, corrected=state.laws.corrected).interval

    return group(name, [member(e) for e in estimates], confidence=confidence, certified=certified)


def _record(g: Group) -> dict[str, Any]:
    """``spread`` is of the natural log of the probability; ``low`` and ``high`` are its interval."""
    base = base_of(g.members)
    spread = None
    if g.spread is not None:
        s = g.spread
        spread = {"sd": s.sd, "low": s.low, "high": s.high, "variance": s.variance, "noise": s.noise}
        spread["p_value"] = s.p_value
    return {
        "group": g.name,
        "base": None if base is None else base.id,
        "members": [m.id for m in g.members],
        "measured": g.count("measured"),
        "bounded": g.count("bounded"),
        "left_out": g.count("left out"),
        "verdict": g.verdict,
        "spread": spread,
        "certified_ratio": g.certified_ratio,
        "worst": g.worst._asdict(),
    }
