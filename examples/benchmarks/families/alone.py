"""Draws for a factor of two by the target and one proposal, at fixed shares and without a pilot.

``families.measure`` replays whole audits, whose pilot alone takes 32 draws a prompt. Proposals that need fewer are
told apart here: a fifth of the draws are the target's, the others the proposal's, and the estimate is their mixture's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from families.pool import PromptPool
from tailrisk.audit.state import AuditState
from tailrisk.cli.lorarounds import Round
from tailrisk.records import FloatArray
from tailrisk.stats.weights import own_correction

SHARE, FACTOR, WANTED = 0.2, 2.0, 0.95
FEWEST, STEP = 3, 1.15
TIMES = 2000


class Answers(NamedTuple):
    """Answers that may be drawn: ``value`` [n] what one counts where its weight is 1 (0: no harm), ``log_p`` and
    ``log_q`` [n], and ``own`` [2, n] the probability that a draw of the target, or of the proposal, is this one."""

    value: FloatArray
    log_p: FloatArray
    log_q: FloatArray
    own: FloatArray


def of_pool(pool: PromptPool, column: int) -> Answers:
    """The pool as if it were all that there is."""
    round_ = pool.round()
    own = np.array([(pool.component == k) / np.sum(pool.component == k) for k in (0, column)])
    value = np.where(round_.harmful, np.exp(own_correction(round_)), 0.0)
    return Answers(value, pool.log_q[:, 0], pool.log_q[:, column], own)


def of_laws(log_p: FloatArray, log_q: FloatArray, harm: FloatArray) -> Answers:
    """All answers there are, and their exact laws."""
    return Answers(harm.astype(np.float64), log_p, log_q, np.exp(np.array([log_p, log_q])))


def draws_needed(answers: Answers, truth: float, most: int, seed: int = 5) -> int | None:
    """The first number of draws on a geometric grid from which on ``WANTED`` of the estimates are within ``FACTOR``
    of the truth; None where that is beyond ``most``."""
    rng = np.random.default_rng(seed)
    edges = [np.cumsum(row) / row.sum() for row in answers.own]
    first, n = None, FEWEST
    while n <= most:
        target = max(1, round(SHARE * n))
        beta = np.log([target / n, 1 - target / n])
        mixed = np.logaddexp(beta[0] + answers.log_p, beta[1] + answers.log_q)
        parts = answers.value * np.exp(answers.log_p - mixed)
        total = np.zeros(TIMES)
        for row, count in zip(edges, (target, n - target), strict=True):
            # The last edge is one, so that no draw falls behind it.
            total += parts[np.searchsorted(row, rng.random((TIMES, count)), side="right")].sum(1)
        ratio = total / n / truth
        held = ((ratio >= 1 / FACTOR) & (ratio <= FACTOR)).mean() >= WANTED
        # Luck of the replications, or of whole numbers, is no success: it has to hold once more.
        if held and first is not None:
            return first
        first = n if held else None
        n = math.ceil(n * STEP)
    return None


def row(name: str, learned: bool, nats: float, needed: list[int | None]) -> dict[str, Any]:
    """One law in the results; infinitely far is None."""
    far = round(float(nats), 3) if np.isfinite(nats) else None
    return {"name": name, "learned": learned, "nats": far, "needed": needed}


def fit_of(rounds: Sequence[Round]) -> dict[str, Any]:
    """What the rounds of a training took, and what came out of the last."""
    cards = [r.card for r in rounds if r.card is not None]
    return {
        "draws": sum(r.draws for r in rounds),
        "seconds": round(sum(e["seconds"] for card in cards for e in card["epochs"]), 1),
        **{key: cards[-1][key] for key in ("divergence", "data", "epochs")},
    }


def seconds_a_draw(state: AuditState) -> float:
    numbers = [n for ledger in state.ledgers.values() for _, n in ledger.numbers()]
    return sum(n.seconds for n in numbers) / state.draws
