"""Draws needed, widths and statuses of each family, alone and together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from families.pool import PromptPool
from families.replay import audits
from tailrisk.config import Config
from tailrisk.records import Status
from tailrisk.stats import Estimate, event_mean
from tailrisk.stats.diagnostics import effective_size
from tailrisk.stats.estimators import contributions
from tailrisk.stats.intervals import t_quantile

FACTOR, WANTED = 2.0, 0.95
PILOT = 32
STEP = 1.25
MOST = 1000
"""Draws a prompt up to which is looked: beyond it the pools are too small to say anything."""
BUDGET = 200
TOGETHER, EQUAL = "all together", "all together, equal shares"


def compare(
    config: Config, pools: Sequence[PromptPool], families: dict[str, tuple[str, ...]], *, times: int
) -> dict[str, Any]:
    """``truths``: one a prompt; ``rows``: one a family, and two for all of them together."""
    truths = [_truth(p) for p in pools]
    every = tuple(name for members in families.values() for name in members)
    p = np.array([t["p"] for t in truths])
    rows = []
    for family, names in {**families, TOGETHER: every, EQUAL: every}.items():
        shares = "equal" if family == EQUAL else "learned"
        pilot = max(PILOT, 2 * (len(names) + 1))
        rows.append({"family": family, "components": list(names)})
        rows[-1] |= _needed(config, pools, names, p, times, shares, pilot)
        rows[-1] |= _at_budget(config, pools, names, p, times, shares, pilot)
    return {"truths": truths, "replications": times, "budget": BUDGET, "rows": rows}


def _truth(pool: PromptPool) -> dict[str, Any]:
    mean = event_mean([pool.round()], corrected=True)
    parts = contributions([pool.round()], corrected=True)
    return {
        "prompt": pool.prompt.id,
        "p": mean.value,
        "relative_error": mean.standard_error / mean.value if mean.value else None,
        "ess": effective_size(parts.part),
        "hits": np.bincount(parts.component, minlength=pool.log_q.shape[1]).tolist(),
    }


def _needed(
    config: Config,
    pools: Sequence[PromptPool],
    names: Sequence[str],
    truths: np.ndarray,
    times: int,
    shares: str,
    pilot: int,
) -> dict[str, Any]:
    """Draws a prompt on a geometric grid from which on the factor is held; None where it never is."""
    found: list[int | None] = [None] * len(pools)
    seen: list[int | None] = [None] * len(pools)
    n = pilot
    while n <= MOST and None in found:
        ends = audits(config, pools, names, n, times, shares=shares, pilot=pilot, seed=1000 * n)
        ratios = np.array([[e.estimate for e in end] for end in ends]) / truths
        close = ((ratios >= 1 / FACTOR) & (ratios <= FACTOR)).mean(axis=0)
        for i, share in enumerate(close):
            # One success may be luck of the replications: the next one must hold as well.
            if found[i] is None:
                seen[i], found[i] = (seen[i] or n, seen[i]) if share >= WANTED else (None, None)
        n = math.ceil(n * STEP)
    return {"needed": found}


def _at_budget(
    config: Config,
    pools: Sequence[PromptPool],
    names: Sequence[str],
    truths: np.ndarray,
    times: int,
    shares: str,
    pilot: int,
) -> dict[str, Any]:
    ends = audits(config, pools, names, BUDGET, times, shares=shares, pilot=pilot, seed=7)
    ratios = np.array([[e.estimate for e in end] for end in ends]) / truths
    width = config.stop.log_width
    believed = [[e.status in (Status.OK, Status.BUDGET_EXHAUSTED) for e in end] for end in ends]
    ok = [
        [_width(e, config.stop.confidence) <= width and b for e, b in zip(end, row, strict=True)]
        for end, row in zip(ends, believed, strict=True)
    ]
    widths = np.array([[_width(e, config.stop.confidence) for e in end] for end in ends])
    return {
        "log_width": [float(x) for x in np.minimum(np.median(widths, axis=0), 99.0)],
        "ok": np.mean(ok, axis=0).tolist(),
        "believed": np.mean(believed, axis=0).tolist(),
        "below_a_third": (ratios < 1 / 3).mean(axis=0).tolist(),
        "shares": {
            name: [
                float(np.mean([end[i].components[name]["share"] for end in ends])) for i in range(len(pools))
            ]
            for name in ("target", *names)
        },
    }


def _width(e: Estimate, confidence: float) -> float:
    """Natural-log width of the working interval, shown or not; inf without an estimate."""
    if not e.estimate > 0:
        return math.inf
    return 2 * t_quantile(confidence, max(e.ess - 1, 1.0)) * e.standard_error / e.estimate
