"""People as the last judge: which draws they are given, and the estimate with their word.

The draws that carry the estimates are given for certain, as far as the number allows; of all others some are drawn by
lot with known probabilities, unflagged ones too. Where a strong judge has read a sample, these are among what it read.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from tailrisk.audit.estimates import estimate_one, estimate_rounds
from tailrisk.audit.readers import reviewed
from tailrisk.audit.rounds import PromptRound
from tailrisk.audit.state import AuditState
from tailrisk.records import FloatArray, IntArray, Verdict
from tailrisk.seeds import derive_seed
from tailrisk.stats import Estimate, RoundDraws, log_weights
from tailrisk.stats.sampling import fixed_size_sample
from tailrisk.stats.twostage import BINS, inclusion
from tailrisk.store import Asked, Sample

BY_LOT = 0.2
"""Part of the labels that all draws have the same chance of, whatever they carry."""


class _Population(NamedTuple):
    """What may be given of a prompt's round: ``rows`` [m], what each is ``worth`` [m], ``group`` [m] by verdict."""

    prompt_id: str
    round: int
    rows: IntArray
    worth: FloatArray
    group: IntArray


def plan_review(state: AuditState, calls: int) -> list[Asked]:
    """Samples of ``calls`` draws at most over all prompts and settled rounds, one record a round."""
    people = [
        _population(state, i, entry, estimate_one(state, ledger).estimate)
        for i, ledger in state.ledgers.items()
        for entry in ledger.entries
        if entry.settled and entry.plan.mass > 0
    ]
    if not people:
        return []
    worth, size = np.concatenate([p.worth for p in people]), sum(len(p.rows) for p in people)
    everyone = np.ones(size, dtype=np.bool_)
    pi = inclusion(worth, everyone, min(BY_LOT * calls / size, 1.0), min(calls, size))
    group = np.concatenate([3 * n + p.group for n, p in enumerate(people)])
    taken = fixed_size_sample(pi, group, derive_seed(state.config.run.seed, "review", calls))
    samples: dict[int, list[Sample]] = {}
    start = 0
    for p in people:
        own = slice(start, start + len(p.rows))
        start += len(p.rows)
        chosen = np.flatnonzero(taken[own])
        rows, chances = p.rows[chosen].tolist(), pi[own][chosen].tolist()
        samples.setdefault(p.round, []).append(Sample(p.prompt_id, tuple(rows), tuple(chances)))
    return [
        Asked(reader="review", round=r, confirmed=(0.0,) * BINS, least=0.0, samples=tuple(some))
        for r, some in sorted(samples.items())
    ]


def _population(state: AuditState, prompt_id: str, entry: PromptRound, estimate: float) -> _Population:
    draws = entry.draws()
    w = np.exp(log_weights(draws, corrected=state.laws.corrected))
    verdict, scale = draws.verdict, entry.plan.mass / float(draws.expected.sum())
    possible = w > 0.0
    if draws.strong is not None:
        verdict, possible = draws.strong.verdict, possible & draws.strong.asked
        w = w / draws.strong.inclusion
    rows = np.flatnonzero(possible)
    likely = np.where(
        verdict == int(Verdict.HARM), 1.0, np.where(verdict == int(Verdict.UNDETERMINED), 0.5, 0.0)
    )
    worth = scale * w[rows] * likely[rows] / max(estimate, 1e-300)
    return _Population(prompt_id, entry.round, rows, worth, verdict[rows].astype(np.int64))


def given(state: AuditState) -> dict[str, tuple[str, int, int, float]]:
    """Key of every draw that is given to people -> (prompt, round, row, probability of being given)."""
    found = {}
    for i, ledger in state.ledgers.items():
        for entry in ledger.entries:
            if entry.review is None:
                continue
            rows = entry.review.rows.tolist()
            places, chances = entry.places(rows), entry.review.inclusion.tolist()
            for (batch, draw), row, pi in zip(places, rows, chances, strict=True):
                found[f"{i}/{batch}#{draw}"] = i, entry.round, row, pi
    return found


def review_estimates(state: AuditState) -> list[Estimate]:
    """With the labels that there are, of the prompts that have any; from the rounds that were given to people."""
    found = []
    for ledger in state.ledgers.values():
        rounds: list[RoundDraws] = []
        labels = 0
        for entry in ledger.entries:
            if entry.settled and entry.plan.mass > 0 and entry.review is not None:
                rounds.append(reviewed(entry.draws(), entry.review))
                labels += len(entry.review.rows) - len(entry.review.waiting(failed=False))
        if labels:
            found.append(estimate_rounds(state, ledger, rounds))
    return found


def review_record(state: AuditState) -> dict[str, Any] | None:
    """The "review" part of estimates.json; None without a label."""
    estimates = review_estimates(state)
    if not estimates:
        return None
    readings = [e.review for x in state.ledgers.values() for e in x.entries if e.review is not None]
    waiting = sum(len(r.waiting(failed=False)) for r in readings)
    asked = sum(len(r.rows) for r in readings)
    return {"given": asked, "labels": asked - waiting, "estimates": [e.to_json() for e in estimates]}
