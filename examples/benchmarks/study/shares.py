"""What learned shares save where one proposal of five is good: whole audits, every draw counted.

The audits never stop early, so that their budget is what they take. A prompt's draws are those of its audit over
the number of prompts, which have the same event and learn from one another.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from truth import gate
from truth.tablelaws import EventJudge, audit_in_memory, text_prompts, toy_config

from study.efficiency import WANTED, close
from study.trust import z_of
from tailrisk.audit.estimates import estimate_all
from tailrisk.config import RunConfig

NAMES = ("target", "good", "mild", "over", "missing", "blind")
PLACES: dict[str, tuple[tuple[float, int], ...]] = {
    "last": tuple((p, d) for p in (1e-5, 1e-7) for d in (1, 2, 4, 8)),
    "early": tuple((p, d) for p in (3e-5, 1e-5, 1e-6, 1e-7) for d in (1, 2)),
}
"""Event -> probability and depth of the gate of each prompt."""
TARGET_SHARE = 0.1
PILOT, ROUNDS = 48, 4
FEWEST, STEP, STEPS = 100, 1.08, 36


def learned(times: int, events: Sequence[str], *, seed: int = 3) -> list[dict[str, Any]]:
    """One row an event: the least draws a prompt with which 95 % of the estimates are within a factor of two, by
    equal shares and by learned ones, and the bias at these."""
    rows = []
    for event in events:
        row: dict[str, Any] = {"event": event, "prompts": len(PLACES[event]), "replications": times}
        for kind in ("equal", "learned"):
            n = _least(event, kind, max(times // 8, 8), seed)
            ratios = _ratios(event, kind, n, times, seed + 1)
            row[kind] = {
                "draws": n,
                "within": close(ratios.ravel()),
                "bias": [z_of(column) for column in ratios.T],
                "bias_of_all": z_of(ratios.mean(axis=1)),
            }
        rows.append(row)
    return rows


def _least(event: str, kind: str, times: int, seed: int) -> int:
    """On a geometric grid, found by bisection: the part within a factor of two grows with the draws."""
    grid = [math.ceil(FEWEST * STEP**i) for i in range(STEPS)]
    low, high = 0, len(grid) - 1
    while low < high:
        middle = (low + high) // 2
        if close(_ratios(event, kind, grid[middle], times, seed).ravel()) >= WANTED:
            high = middle
        else:
            low = middle + 1
    return grid[low]


@cache
def _ratios(event: str, kind: str, n: int, times: int, seed: int) -> np.ndarray:
    """[times, prompts] estimate over truth of audits with n draws a prompt."""
    places = PLACES[event]
    gates = [p / gate.truth(1e-4, event, d) * 1e-4 for p, d in places]
    truths = np.array([gate.truth(g, event, d) for g, (_, d) in zip(gates, places, strict=True)])
    prompts = text_prompts([gate.text(g, d) for g, (_, d) in zip(gates, places, strict=True)])
    laws, judge = gate.GateLaws(NAMES), EventJudge(gate.EVENTS[event], gate.WORDS)
    budget = {"draws": n * len(prompts), "pilot": PILOT, "batch": 4096, "rounds": ROUNDS}
    budget |= {"target_share": TARGET_SHARE, "shares": kind, "objective": "uniform"}
    target = {"model": "toy", "dtype": "float64", "sampling": {"max_new_tokens": gate.LENGTH}}
    config = toy_config(NAMES, target=target, budget=budget, stop={"log_width": 0.01})
    found = []
    for i in range(times):
        run = RunConfig(seed=seed * 100_000 + i)
        state, _ = audit_in_memory(config.model_copy(update={"run": run}), prompts, laws, judge=judge)
        found.append([e.estimate for e in estimate_all(state)])
    return np.array(found) / truths
