"""What a run was drawn on, in words: in half precision two kinds of processors are two laws."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tailrisk.report.clean import visible

MODELS = "models"
"""The pool whose workers have the target."""


def kinds(totals: Mapping[str, Any], pool: str = MODELS) -> dict[str, int]:
    """Draws by kind of processor, '' for those of which it is not known; those of ``pool``'s workers."""
    return {p["kind"]: p["draws"] for p in totals.get("processors") or () if _pool(p) == pool}


def drawn_on(totals: Mapping[str, Any]) -> str:
    """E.g. ``x86_64 with avx2 (1,000 draws), x86_64 with amx_bf16 (3,000 draws)``; '' where nothing is known."""
    return "; ".join(
        ("" if pool == MODELS else f"{pool}: ")
        + ", ".join(
            f"{visible(kind) or 'not recorded'} ({n:,} draws)" for kind, n in kinds(totals, pool).items()
        )
        for pool in _pools(totals)
    )


def mixture(totals: Mapping[str, Any]) -> str:
    """A sentence on a run whose draws are from several laws, one for each kind of processor; '' where all are from
    one."""
    several = any(len([kind for kind in kinds(totals, pool) if kind]) > 1 for pool in _pools(totals))
    if not totals.get("corrected") or not several:
        return ""
    return (
        f"drawn on several kinds of processors ({drawn_on(totals)}): in half precision these are different laws, and "
        "the estimates are of their mixture"
    )


def unlike(a: Mapping[str, Any], b: Mapping[str, Any]) -> str:
    """A sentence on two runs, A and B, that were drawn on different kinds; '' where that makes no difference."""
    first, second = ({kind for kind in kinds(t) if kind} for t in (a, b))
    if not (a.get("corrected") or b.get("corrected")) or not first or not second or first == second:
        return ""
    return (
        f"A was drawn on {visible(', '.join(sorted(first)))} and B on {visible(', '.join(sorted(second)))}: in half "
        "precision the same weights are another law there, which may be what differs"
    )


def _pools(totals: Mapping[str, Any]) -> list[str]:
    """The target's first."""
    return sorted({_pool(p) for p in totals.get("processors") or ()}, key=lambda pool: (pool != MODELS, pool))


def _pool(processor: Mapping[str, Any]) -> str:
    """What was drawn before anything was known of processors has no pool either."""
    return processor["pool"] or MODELS
