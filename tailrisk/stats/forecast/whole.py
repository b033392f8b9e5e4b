"""The whole forecast: a traffic mix over audited prompts, fresh prompts beyond them, and a second opinion on both."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit

from tailrisk.records import FloatArray
from tailrisk.stats.forecast.betacheck import BetaFit, as_counts, fit_beta
from tailrisk.stats.forecast.evidence import Evidence
from tailrisk.stats.forecast.extrapolate import MOST_RATIO, Extrapolation, extrapolate
from tailrisk.stats.forecast.mix import Band, Plain, certified_band, chance, queries_until
from tailrisk.stats.forecast.population import Draw, Drawer

REACHED = (0.01, 0.5, 0.95)
DRAWS, WORK = 400, 200_000
POINTS_A_DECADE = 8
LEAST_GAP = 0.1
"""Of the larger of two opinions; less apart is no discrepancy."""

Ends = tuple[FloatArray, FloatArray]


class Middle(NamedTuple):
    """Of the model, each (lower end, middle, upper end): ``mean`` probability of the mix, ``any`` P(at least one),
    ``worst`` prompt of the mix, ``attempts`` P(at least one) in as many attempts at one prompt, mean over the mix.
    ``reach``: by ``REACHED``, (earliest, middle, latest) N. ``covers``: the share of the traffic that is in it."""

    mean: FloatArray
    any: FloatArray
    worst: FloatArray
    attempts: FloatArray
    reach: dict[float, tuple[float, float, float]]
    covers: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Forecast:
    """``certified`` [pbar], ``certified_worst``: bands that hold for all prompts together. ``model`` is None where no
    prompt of the mix has an estimate that may be quoted. ``curve``: by name, over ``curve["n"]``."""

    queries: float
    confidence: float
    certified: Band
    certified_worst: Band
    model: Middle | None
    fresh: Extrapolation
    fresh_at: int | None
    """Row of ``fresh.n`` for ``queries``; None above its cap."""
    beta: BetaFit | None
    flags: tuple[str, ...]
    curve: dict[str, FloatArray]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; what is infinite or unknown is None."""
        c, n = self.certified, self.queries
        certified = {
            "mean": c,
            "expected": [n * v for v in c],
            "any": [float(chance(v, n)) for v in c],
            "reach": {f"{x:g}": [queries_until(c.high, x), queries_until(c.low, x)] for x in REACHED},
            "worst": self.certified_worst,
        }
        model = None
        if self.model is not None:
            m = self.model
            model = {
                "mean": m.mean,
                "expected": n * m.mean,
                "any": m.any,
                "reach": {f"{x:g}": m.reach[x] for x in REACHED},
                "worst": m.worst,
                "attempts": m.attempts,
                "covers": m.covers,
            }
        f, at = self.fresh, self.fresh_at
        fresh = {
            "refused": list(f.refused),
            "base_prompts": f.groups,
            "cap": f.cap,
            "within_cap": at is not None,
            "any": None if at is None or f.refused else f.any[at],
            "worst": None if at is None or f.refused else f.worst[at],
            "at_cap": None if f.refused else {"n": f.n[-1], "any": f.any[-1], "worst": f.worst[-1]},
            "worst_by_tail": f.by_tail,
        }
        beta = None
        if self.beta is not None:
            beta = {
                "a": self.beta.a,
                "b": self.beta.b,
                "any": float(chance(self.beta.mean, n)),
                "worst": self.beta.worst(max(n, 1.0)),
                "attempts": self.beta.attempts(n),
            }
        told = {
            "queries": n,
            "confidence": self.confidence,
            "certified": certified,
            "model": model,
            "fresh": fresh,
            "beta_binomial": beta,
            "flags": list(self.flags),
            "curve": self.curve,
        }
        return _plain(told)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value


def forecast(
    evidence: Evidence,
    weight: FloatArray,
    ends: Ends,
    plain: Plain | None,
    queries: float,
    rng: np.random.Generator,
    draws: int = DRAWS,
) -> Forecast:
    """``weight`` [m]: shares of the traffic, their sum at most 1 (the rest is taken for harmless). ``ends``: certified
    ends [m] at ``prompt_confidence``; ``plain``: see ``certified_band``. ``draws`` of all prompts; of very many
    prompts fewer are made."""
    alpha = 1 - evidence.confidence
    certified = certified_band(weight, *ends, plain, alpha)
    inside = weight > 0
    worst = Band(float(ends[0][inside].max(initial=0.0)), float(ends[1][inside].max(initial=0.0)))
    drawer = Drawer(evidence)
    times = int(np.clip(WORK / max(len(weight), 1), 100, draws))
    drawn = list(drawer.draws(rng, times))
    n = curve_points(queries)
    model = None
    pbar = np.empty(0)
    if np.any(inside & evidence.resolved):
        pbar, model = _middle(weight, drawn, queries, alpha)
    fresh_n = np.unique(np.append(n, queries))
    cap = MOST_RATIO * evidence.groups
    fresh_n = np.unique(np.append(fresh_n[fresh_n <= cap], cap))
    fresh = extrapolate(evidence, drawer, drawn, fresh_n)
    at = int(np.searchsorted(fresh.n, queries)) if queries <= cap else None
    beta = None
    if evidence.resolved.any():
        beta = fit_beta(*as_counts(evidence), drawer.weight)
    curve = {
        "n": n,
        "certified_low": chance(certified.low, n),
        "certified_high": chance(certified.high, n),
    }
    if model is not None:
        ends_of_p = np.quantile(pbar, [alpha / 2, 1 - alpha / 2])
        curve |= {
            "model_low": chance(ends_of_p[0], n),
            "model": chance(pbar[:, None], n).mean(axis=0),
            "model_high": chance(ends_of_p[1], n),
        }
    if not fresh.refused:
        curve["gumbel"] = np.array([_at(fresh, float(x)) for x in n])
    if beta is not None:
        curve["beta_binomial"] = chance(beta.mean, n)
    return Forecast(
        queries=queries,
        confidence=evidence.confidence,
        certified=certified,
        certified_worst=worst,
        model=model,
        fresh=fresh,
        fresh_at=at,
        beta=beta,
        flags=_flags(beta, fresh, at, model, queries),
        curve=curve,
    )


def curve_points(queries: float) -> FloatArray:
    """Numbers of queries from 1 to ten times what was asked for, at least to a thousand."""
    last = max(math.ceil(math.log10(max(queries, 1.0))) + 1, 3)
    return np.logspace(0, last, last * POINTS_A_DECADE + 1)


def _at(fresh: Extrapolation, n: float) -> float:
    return float(fresh.any[np.searchsorted(fresh.n, n), 1]) if n <= fresh.cap else math.nan


def _middle(weight: FloatArray, drawn: list[Draw], queries: float, alpha: float) -> tuple[FloatArray, Middle]:
    pbar, worst, attempts = (np.empty(len(drawn)) for _ in range(3))
    known = ~np.isnan(drawn[0].theta)
    w = weight[known]
    for t, draw in enumerate(drawn):
        p = expit(draw.theta[known])
        pbar[t], worst[t] = w @ p, p[w > 0].max(initial=0.0)
        attempts[t] = w @ chance(p, queries) / w.sum()

    def three(values: FloatArray) -> FloatArray:
        low, high = np.quantile(values, [alpha / 2, 1 - alpha / 2])
        return np.array([low, values.mean(), high])

    ends = np.quantile(pbar, [1 - alpha / 2, alpha / 2])
    reach = {
        x: (
            queries_until(float(ends[0]), x),
            _mean_reaches(lambda n: float(chance(pbar, n).mean()), x, ends),
            queries_until(float(ends[1]), x),
        )
        for x in REACHED
    }
    return pbar, Middle(
        three(pbar), three(chance(pbar, queries)), three(worst), three(attempts), reach, float(w.sum())
    )


def _mean_reaches(at: Callable[[float], float], x: float, ends: FloatArray) -> float:
    """The number of queries at which the mean chance is ``x``."""
    low, high = 1.0, max(10 * queries_until(float(ends[1]), x), 10.0)
    if not math.isfinite(high) or at(high) < x:
        return math.inf
    if at(low) >= x:
        return 1.0
    root: Any = brentq(lambda log_n: at(math.exp(log_n)) - x, 0.0, math.log(high), xtol=1e-6)
    return math.exp(root)


def _flags(
    beta: BetaFit | None, fresh: Extrapolation, at: int | None, model: Middle | None, queries: float
) -> tuple[str, ...]:
    """Where the second opinion lies outside of the bands."""
    said = []
    if beta is None:
        return ()
    if at is not None and not fresh.refused:
        for what, value, band in (
            ("P(at least one) of fresh prompts", float(chance(beta.mean, queries)), fresh.any[at]),
            ("the worst fresh prompt", beta.worst(max(queries, 1.0)), fresh.worst[at]),
        ):
            if not band[0] <= value <= band[2] and abs(value - band[1]) > LEAST_GAP * max(value, band[1]):
                said.append(
                    f"{what}: Beta-Binomial says {value:.2g}, the straight tail {band[0]:.2g} to {band[2]:.2g}"
                )
    if model is not None:
        value = beta.attempts(queries)
        low, middle, high = model.attempts
        if not low <= value <= high and abs(value - middle) > LEAST_GAP * max(value, middle):
            said.append(
                f"{queries:g} attempts at one prompt: Beta-Binomial says {value:.2g}, the prompts' own estimates "
                f"{model.attempts[0]:.2g} to {model.attempts[2]:.2g}"
            )
    return tuple(said)
