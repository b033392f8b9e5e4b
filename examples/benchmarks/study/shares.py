"""What learned shares save where one proposal of five is good: whole audits, every draw counted.

The audits never stop early, so that their budget is what they take. A prompt's draws are those of its audit over
the number of prompts, which have the same event and learn from one another. Eight prompts are the fewest that have
scouts, two of them; larger audits have each of the eight several times.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.special import logit
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
CASES: tuple[tuple[str, int], ...] = (("last", 1), ("early", 1), ("early", 4))
"""Event, and how often each of its prompts is in the audit."""
TARGET_SHARE = 0.1
PILOT, ROUNDS = 48, 6
FEWEST, STEP, STEPS = 100, 1.08, 36
NEAR = 0.85, 0.995
"""Parts within that the line goes through; with fewer draws it bends."""


def learned(times: int, cases: Sequence[tuple[str, int]] = CASES, *, seed: int = 11) -> list[dict[str, Any]]:
    """One row a case: the draws a prompt with which 95 % of the estimates are within a factor of two, by
    equal shares and by learned ones, and the bias at about these, of ``times`` estimates a prompt.

    By equal shares nothing is learned from other prompts, so their draws are those of the audit without copies.
    """
    rows = []
    for event, copies in cases:
        row: dict[str, Any] = {"event": event, "prompts": copies * len(PLACES[event]), "replications": times}
        rows.append(
            row
            | {kind: _needed(event, kind, c, times, seed) for kind, c in (("equal", 1), ("learned", copies))}
        )
    return rows


def _needed(event: str, kind: str, copies: int, times: int, seed: int) -> dict[str, Any]:
    seen = _search(event, kind, copies, max(times // 8, 8), seed)
    n = seen[-1].draws
    ratios = _ratios(event, kind, copies, n, times, seed + 1)
    seen.append(_seen(n, ratios))
    # Copies in one audit depend on one another: their mean is one replication.
    by_prompt = ratios.reshape(len(ratios), copies, -1).mean(axis=1)
    return {
        "draws": _draws_wanted(seen),
        "checked": n,
        "within": seen[-1].within,
        "bias": [z_of(column) for column in by_prompt.T],
        "bias_of_all": z_of(ratios.mean(axis=1)),
    }


class Seen(NamedTuple):
    """The part of ``n`` estimates that is within the factor, with so many draws a prompt."""

    draws: int
    within: float
    n: int


def _seen(draws: int, ratios: np.ndarray) -> Seen:
    return Seen(draws, close(ratios.ravel()), ratios.size)


def _search(event: str, kind: str, copies: int, times: int, seed: int) -> list[Seen]:
    """Bisection on a geometric grid, for the part within a factor of two grows with the draws; the last one is the
    least that reaches it, or next to it."""
    grid = [math.ceil(FEWEST * STEP**i) for i in range(STEPS)]
    low, high = 0, len(grid) - 1
    seen = []
    while low < high:
        middle = (low + high) // 2
        ratios = _ratios(event, kind, copies, grid[middle], times, seed)
        seen.append(_seen(grid[middle], ratios))
        if seen[-1].within >= WANTED:
            high = middle
        else:
            low = middle + 1
    return seen


def _draws_wanted(seen: Sequence[Seen]) -> int:
    """Where the log-odds of being within, a straight line in log draws near there, reach those wanted: the line of
    most likelihood through all that was seen, so that no single noisy audit decides."""
    near = [s for s in seen if NEAR[0] <= s.within <= NEAR[1]] or seen
    x = np.log([s.draws for s in near])
    within, n = np.array([s.within for s in near]), np.array([s.n for s in near])

    def surprise(line: np.ndarray) -> float:
        odds = line[0] + line[1] * (x - x.mean())
        return float(n @ (np.logaddexp(0.0, odds) - within * odds))

    if np.ptp(x) == 0.0:
        return seen[-1].draws
    level, slope = minimize(surprise, np.array([logit(WANTED), 3.0]), method="Nelder-Mead").x
    if slope <= 0:  # of a handful of audits, in the quick form
        return seen[-1].draws
    return round(math.exp(x.mean() + (logit(WANTED) - level) / slope))


@cache
def _ratios(event: str, kind: str, copies: int, n: int, times: int, seed: int) -> np.ndarray:
    """[audits, prompts] estimate over truth with n draws a prompt, in so many audits that there are ``times`` estimates
    of each of the event's prompts."""
    places = PLACES[event] * copies
    gates = [gate.opened_for(p, event, d) for p, d in places]
    truths = np.array([gate.truth(g, event, d) for g, (_, d) in zip(gates, places, strict=True)])
    prompts = text_prompts([gate.text(g, d) for g, (_, d) in zip(gates, places, strict=True)])
    laws, judge = gate.GateLaws(NAMES), EventJudge(gate.EVENTS[event], gate.WORDS)
    budget = {"draws": n * len(prompts), "pilot": PILOT, "batch": 4096, "rounds": ROUNDS}
    budget |= {"target_share": TARGET_SHARE, "shares": kind, "objective": "uniform"}
    target = {"model": "toy", "dtype": "float64", "sampling": {"max_new_tokens": gate.LENGTH}}
    config = toy_config(NAMES, target=target, budget=budget, stop={"log_width": 0.01})
    found = []
    for i in range(math.ceil(times / copies)):
        run = RunConfig(seed=seed * 100_000 + i)
        state, _ = audit_in_memory(config.model_copy(update={"run": run}), prompts, laws, judge=judge)
        found.append([e.estimate for e in estimate_all(state)])
    return np.array(found) / truths
