"""Draws needed, widths and statuses of each family, alone and together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

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
MOST = 600
"""Draws a prompt up to which is looked: beyond it the pools are too small to say anything."""
BUDGET = 200
WIDEST = 20.0
"""Widths are cut here: there is no estimate, or one hit."""
TOGETHER, EQUAL = "all together", "all together, equal shares"


class Case(NamedTuple):
    """Audits of the pools with the target and the proposals ``names``; ``truths`` [prompts], ``times`` of each."""

    config: Config
    pools: Sequence[PromptPool]
    names: tuple[str, ...]
    truths: np.ndarray
    times: int
    shares: str

    @property
    def pilot(self) -> int:
        return max(PILOT, 2 * (len(self.names) + 1))

    def ends(self, draws: int, seed: int) -> tuple[list[list[Estimate]], np.ndarray]:
        """Estimates [times][prompts] with so many draws a prompt, and what they are of the truth [times, prompts]."""
        ends = audits(
            self.config,
            self.pools,
            self.names,
            draws,
            self.times,
            shares=self.shares,
            pilot=self.pilot,
            seed=seed,
        )
        return ends, np.array([[e.estimate for e in end] for end in ends]) / self.truths


def compare(
    config: Config, pools: Sequence[PromptPool], families: dict[str, tuple[str, ...]], *, times: int
) -> dict[str, Any]:
    """``truths``: one a prompt; ``rows``: one a family, and two for all of them together."""
    truths = [_truth(p) for p in pools]
    every = tuple(name for members in families.values() for name in members)
    p = np.array([t["p"] for t in truths])
    rows = []
    for family, names in {**families, TOGETHER: every, EQUAL: every}.items():
        case = Case(config, pools, names, p, times, "equal" if family == EQUAL else "learned")
        rows.append(
            {"family": family, "components": list(names), "needed": _needed(case), **_at_budget(case)}
        )
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


def _needed(case: Case) -> list[int | None]:
    """Draws a prompt on a geometric grid from which on the factor is held; None where it never is."""
    found: list[int | None] = [None] * len(case.pools)
    seen: list[int | None] = [None] * len(case.pools)
    n = case.pilot
    while n <= MOST and None in found:
        _, ratios = case.ends(n, seed=1000 * n)
        close = ((ratios >= 1 / FACTOR) & (ratios <= FACTOR)).mean(axis=0)
        for i, share in enumerate(close):
            # One success may be luck of the replications: the next one must hold as well.
            if found[i] is None:
                seen[i], found[i] = (seen[i] or n, seen[i]) if share >= WANTED else (None, None)
        n = math.ceil(n * STEP)
    return found


def _at_budget(case: Case) -> dict[str, Any]:
    """Means over the replications, one a prompt."""
    ends, ratios = case.ends(BUDGET, seed=7)
    stop = case.config.stop
    widths = np.array([[_width(e, stop.confidence) for e in end] for end in ends])
    believed = np.array([[e.status in (Status.OK, Status.BUDGET_EXHAUSTED) for e in end] for end in ends])
    return {
        "log_width": np.minimum(np.median(widths, axis=0), WIDEST).tolist(),
        "ok": (believed & (widths <= stop.log_width)).mean(axis=0).tolist(),
        "believed": believed.mean(axis=0).tolist(),
        "below_a_third": (ratios < 1 / 3).mean(axis=0).tolist(),
        "shares": {
            name: np.mean([[e.components[name]["share"] for e in end] for end in ends], axis=0).tolist()
            for name in ("target", *case.names)
        },
    }


def _width(e: Estimate, confidence: float) -> float:
    """Natural-log width of the working interval, shown or not; inf without an estimate."""
    if not e.estimate > 0:
        return math.inf
    return 2 * t_quantile(confidence, max(e.ess - 1, 1.0)) * e.standard_error / e.estimate
