"""What further draws of the open prompts are worth: shares, variance a draw, draws still wanted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tailrisk.audit.estimates import estimate_one
from tailrisk.audit.state import AuditState, PromptLedger
from tailrisk.records import FloatArray
from tailrisk.stats.estimators import Contributions, Mean, variance_of
from tailrisk.stats.masses import draws_to_close, target_se
from tailrisk.stats.shares import hits_of, initial_shares, shares_for

LEAST_REL_VAR = 1.0
"""Relative variance a draw that a forecast does not go below: a draw is worth one hit at most."""
ENOUGH_HITS = 20.0
"""Effective hits that a closed prompt should have: twice what its diagnostics ask for."""
DIMINISHING = 0.1
"""Where earlier rounds alone are too wide, further draws stop being wanted at this part of their variance."""


class Outlook(NamedTuple):
    """The open prompts, P of them.

    ``shares`` [P, K] for the next draws; ``rel_var`` [P] what n further draws add to the estimate's relative
    variance, times n; ``cost`` [P] tokens a draw; ``wanted`` [P] draws of a last round that are forecast to
    reach the stop width, inf before the first hit; ``settled`` [P] True where nothing but width is missing,
    so that such a last round may be planned.
    """

    shares: FloatArray
    rel_var: FloatArray
    cost: FloatArray
    wanted: FloatArray
    settled: NDArray[np.bool_]


class _Forecast(NamedTuple):
    rel_var: float
    wanted: float
    settled: bool


def outlook(state: AuditState, ledgers: Sequence[PromptLedger]) -> Outlook:
    """For prompts that have a complete round each."""
    beta, hits = _shares_and_hits(state, ledgers)
    forecasts = [_forecast(state, *each) for each in zip(ledgers, beta, hits, strict=True)]
    drawn = np.array([ledger.draws for ledger in ledgers])
    counted = np.array([ledger.counted for ledger in ledgers])
    mass_left = np.array([ledger.mass_left for ledger in ledgers])
    return Outlook(
        shares=beta,
        rel_var=_filled(np.array([f.rel_var for f in forecasts]), counted) * mass_left**2,
        cost=np.array([ledger.tokens for ledger in ledgers]) / drawn,
        wanted=np.array([f.wanted for f in forecasts]),
        settled=np.array([f.settled for f in forecasts], dtype=np.bool_),
    )


def _filled(rel_var: FloatArray, drawn: NDArray[np.int64]) -> FloatArray:
    """Relative variances a draw; before its first hit a prompt is at least as hard as the hardest of the
    others, and as its own draws show."""
    known = np.isfinite(rel_var)
    return np.where(known, rel_var, np.maximum(rel_var[known].max(initial=0.0), drawn))


def next_shares(state: AuditState, ledgers: Sequence[PromptLedger]) -> FloatArray:
    """[P, K]; closed prompts still teach which components find harm. Prompts learn from those that have the same
    components."""
    return _shares_and_hits(state, ledgers)[0]


def _shares_and_hits(
    state: AuditState, ledgers: Sequence[PromptLedger]
) -> tuple[FloatArray, list[Contributions | None]]:
    """``next_shares`` [P, K], and the hits of the P prompts that they were learned from."""
    every = [*ledgers, *(x for x in state.ledgers.values() if not x.open and x.failed is None)]
    shares = np.zeros((len(every), len(state.laws.names)))
    budget, corrected = state.config.budget, state.laws.corrected
    learns = budget.shares != "equal"
    wanted = every if learns else every[: len(ledgers)]
    hits = [hits_of(x.rounds, corrected=corrected) for x in wanted]
    alike: dict[tuple[int, ...], list[int]] = {}
    for i, x in enumerate(every):
        alike.setdefault(x.components, []).append(i)
    for components, rows in alike.items():
        start = _searched_shares([every[i] for i in rows])
        if not learns:
            shares[np.ix_(rows, components)] = (
                initial_shares(len(components), budget.target_share) if start is None else start
            )
            continue
        shares[np.ix_(rows, components)] = shares_for(
            [hits[i] for i in rows],
            len(components),
            target_share=budget.target_share,
            groups=[every[i].prompt.group for i in rows],
            start=start,
        )
    return shares[: len(ledgers)], hits[: len(ledgers)]


def _searched_shares(ledgers: Sequence[PromptLedger]) -> FloatArray | None:
    """[K'] what a search chose as the shares of these prompts' components, which their pilots were drawn by; None
    without a search."""
    if any(ledger.restriction is None for ledger in ledgers):
        return None
    pilots = np.sum([ledger.rounds[0].expected for ledger in ledgers if ledger.rounds], axis=0)
    return pilots / pilots.sum()


def _forecast(
    state: AuditState, ledger: PromptLedger, shares: FloatArray, parts: Contributions | None
) -> _Forecast:
    """``shares`` [K] of the next draws; ``parts``: the hits so far."""
    stop, estimate = state.config.stop, estimate_one(state, ledger)
    mean = Mean(estimate.estimate, estimate.standard_error**2, ledger.mass)
    if parts is None or mean.value <= 0.0:
        return _Forecast(math.nan, math.inf, False)
    # Hits that all weigh the same forecast no variance at all; what they have not met would add some.
    per_draw = max(
        variance_of(parts, shares[list(ledger.components)]),
        LEAST_REL_VAR * mean.value**2,
    )
    drawn = mean.variance * mean.mass**2
    # At the stop width the hits are worth about 1 / (relative standard error)^2 draws, whatever they are now.
    df = (2 * 2.0 / stop.log_width) ** 2
    goal = target_se(mean.value, stop.log_width, stop.confidence, max(df, 1.0))
    # A last round that is small for its mass may be narrow enough and yet rest on a handful of heavy draws:
    # the sum of squared parts, 1 / ESS, is held to its own goal.
    squares = float(np.square(parts.part).sum()) * mean.mass**2
    enough = mean.value / math.sqrt(ENOUGH_HITS)
    wanted = max(
        draws_to_close(drawn, ledger.mass_left, per_draw, goal),
        draws_to_close(squares, ledger.mass_left, per_draw + mean.value**2, enough),
    )
    # Hits that are one answer again and again show no variance, and no draws would be enough.
    if math.isinf(wanted) and drawn > 0:
        wanted = ledger.mass_left**2 * per_draw / (DIMINISHING * drawn)
    # More draws of the same components rarely find the harm a second time: the prompt need not wait for it.
    settled = bool(estimate.hits) and set(estimate.alarms) <= {"uncorroborated"}
    return _Forecast(per_draw / mean.value**2, wanted, settled)
