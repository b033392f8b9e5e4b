"""How the estimates and their precision came about, round by round, from sums over the draws."""

from __future__ import annotations

from array import array
from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np

from tailrisk.records import PromptPlan
from tailrisk.report.weighed import Weighed
from tailrisk.stats.intervals import t_quantile
from tailrisk.stats.running import Sums, history, round_mean


class Point(NamedTuple):
    """A prompt after a round: draws that its estimate rested on then, the estimate and its standard error."""

    round: int
    draws: int
    value: float
    error: float


class Width(NamedTuple):
    """After a round: the ``largest`` and the ``median`` half-width of an interval relative to its estimate, over the
    ``prompts`` that had hits by then."""

    round: int
    largest: float
    median: float
    prompts: int


class Running(NamedTuple):
    """``traces``: of the prompts asked for; ``widths``: of all prompts, one a round."""

    traces: dict[str, list[Point]]
    widths: list[Width]


class History:
    """Takes in batches as the log is replayed: three numbers for each component of each prompt's round."""

    def __init__(self) -> None:
        self._where: dict[tuple[str, int], dict[int, int]] = {}
        self._plans: dict[tuple[str, int], PromptPlan] = {}
        self._n, self._total, self._square = array("q"), array("d"), array("d")

    def add(self, weighed: Weighed) -> None:
        batch, plan = weighed.result.batch, weighed.plan
        key = batch.prompt_id, batch.round
        strata = self._where.get(key)
        if strata is None:
            strata, self._plans[key] = self._where.setdefault(key, {}), plan
        place = strata.setdefault(_stratum(plan, batch.component), len(self._n))
        if place == len(self._n):
            self._n.append(0)
            self._total.append(0.0)
            self._square.append(0.0)
        self._n[place] += weighed.result.n
        self._total[place] += weighed.harm_sum
        if len(weighed.harm_w):
            self._square[place] += float(weighed.harm_w @ weighed.harm_w)

    def done(self, asked: Collection[str], rounds: Sequence[int], confidence: float) -> Running:
        """``asked``: prompts whose traces are wanted. Rounds that are not complete are left out."""
        of_prompt: dict[str, list[int]] = {}
        for prompt, round_ in self._where:
            of_prompt.setdefault(prompt, []).append(round_)
        traces: dict[str, list[Point]] = {}
        changes: dict[int, list[tuple[int, float]]] = {}
        quantile = t_quantile(confidence, float("inf"))
        for number, (prompt, drawn) in enumerate(of_prompt.items()):
            points = self._points(prompt, sorted(drawn))
            if prompt in asked:
                traces[prompt] = points
            for point in points:
                if point.value > 0 and point.error > 0:
                    width = quantile * point.error / point.value
                    changes.setdefault(point.round, []).append((number, width))
        return Running(traces, _widths(len(of_prompt), rounds, changes))

    def _points(self, prompt: str, drawn: Sequence[int]) -> list[Point]:
        means, draws, kept = [], [], []
        for round_ in drawn:
            plan = self._plans[prompt, round_]
            strata = [
                Sums(self._n[i], self._total[i], self._square[i])
                for i in self._where[prompt, round_].values()
            ]
            n = sum(s.n for s in strata)
            if n == sum(plan.counts):
                means.append(round_mean(strata, plan.mass))
                draws.append(n)
                kept.append(round_)
        after = zip(kept, np.cumsum(draws, dtype=np.int64).tolist(), history(means), strict=True)
        return [Point(r, n, mean.value, mean.standard_error) for r, n, mean in after]


def _stratum(plan: PromptPlan, component: int) -> int:
    """Components that share their draws by lot are one stratum, of their mixture."""
    if plan.faded is None or plan.faded[component] == 0.0:
        return component
    return next(k for k, f in enumerate(plan.faded) if f > 0.0)


def _widths(prompts: int, rounds: Sequence[int], changes: dict[int, list[tuple[int, float]]]) -> list[Width]:
    """A prompt keeps its width while others are drawn."""
    now, found = np.full(prompts, np.nan), []
    for round_ in rounds:
        for number, width in changes.get(round_, ()):
            now[number] = width
        known = now[np.isfinite(now)]
        if len(known):
            found.append(Width(round_, float(known.max()), float(np.median(known)), len(known)))
    return found
