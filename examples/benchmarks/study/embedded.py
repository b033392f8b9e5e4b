"""The same questions on the embedded language model.

*Openings* have a probability known by enumeration. Their answers end where the event is decided, after two or three
tokens. So few answers differ that every audit would say so; what is asked there is bias, whether certified
intervals hold, and how many draws it takes. *First passages* are long answers that hold a character somewhere; their
probability is known to about one per cent (``first_passage.py``), so coverage and draws are asked, not bias.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from truth.embeddedlm import Event, Pool, laws_of, plain_model, pool, replications
from truth.firstpassage import EVENTS as PASSAGES
from truth.openings import EVENTS as OPENINGS
from truth.openings import opening_truth, replicated

from study.efficiency import close, least_draws, plain_draws
from study.trust import judged, summary, z_of
from tailrisk.audit.protocols import Laws
from tailrisk.judges import build_judge
from tailrisk.records import IntArray
from tailrisk.stats import RoundDraws, control_mean, event_mean

FIRST_PASSAGE = Path(__file__).resolve().parents[1] / "first_passage.json"
OWN, EACH = 5, 10
"""Draws of the target and of each proposal in one replication of a first passage."""
RESAMPLED = 400
FEWEST = 24


def openings(times: int, names: Sequence[str] | None = None, *, seed: int = 11) -> list[dict[str, Any]]:
    """One row an event."""
    plain = plain_model()
    rows = []
    for event in OPENINGS:
        if names is None or event.name in names:
            p = opening_truth(event, plain).probability
            event, counts = replicated(event)
            rows.append(_row(event, p, counts, times, seed))
    return rows


def passages(times: int, names: Sequence[str] | None = None, *, seed: int = 11) -> list[dict[str, Any]]:
    """One row an event; ``p_error`` is the relative standard error of its probability."""
    known = json.loads(FIRST_PASSAGE.read_text("utf-8"))
    rows = []
    for event in PASSAGES:
        if names is None or event.name in names:
            counts = (OWN, *[EACH] * (len(event.steering) + (event.opening is not None)))
            row = _row(event, known[event.name]["probability"], counts, times, seed)
            del row["bias"]
            rows.append({**row, "p_error": known[event.name]["relative_error"]})
    return rows


def _row(event: Event, p: float, counts: Sequence[int], times: int, seed: int) -> dict[str, Any]:
    config = event.config()
    laws, judge = laws_of(config), build_judge(config)
    drawn = pool(laws, event.record, judge, [times * c for c in counts], seed)
    rounds = replications(drawn, counts, times)
    estimators = {"mixture": event_mean, "control variates": control_mean}
    found = summary(judged(([r] for r in rounds), laws.names[1:]), p)
    return {
        "event": event.name,
        "p": p,
        "draws": sum(counts),
        "proposals": list(laws.names[1:]),
        "bias": {
            name: z_of(np.array([mean([r], corrected=False).value for r in rounds]) / p)
            for name, mean in estimators.items()
        },
        **{key: found[key] for key in ("replications", "certified_covers", "certified_log_width")},
        "needed": _needed(drawn, np.asarray(counts), p, seed),
        "plain": plain_draws(p),
        **_whole(drawn, np.asarray(counts) * times, laws, p),
    }


def _needed(drawn: Pool, counts: IntArray, p: float, seed: int) -> int | None:
    """Draws, in these proportions, for a factor of two with probability 95 %: data sets are drawn from the pool with
    replacement. None where the pool itself is too small to tell."""
    most = int(counts.sum()) * min(len(v) for v in drawn.verdict) // int(counts.max())

    def share(n: int) -> float:
        rng = np.random.default_rng([seed, n])
        sizes = np.maximum(np.round(counts * (n / counts.sum())).astype(np.int64), 1)
        found = [event_mean([_resampled(drawn, sizes, rng)], corrected=False).value for _ in range(RESAMPLED)]
        return close(np.array(found) / p)

    n = least_draws(share, FEWEST)
    return None if n is None or n > most else n


def _resampled(drawn: Pool, sizes: IntArray, rng: np.random.Generator) -> RoundDraws:
    rows = [rng.integers(len(v), size=int(c)) for v, c in zip(drawn.verdict, sizes, strict=True)]
    return RoundDraws(
        sizes,
        1.0,
        np.repeat(np.arange(len(sizes)), sizes),
        np.concatenate([q[r] for q, r in zip(drawn.log_q, rows, strict=True)]),
        np.concatenate([q[r] for q, r in zip(drawn.log_q_sample, rows, strict=True)]),
        np.concatenate([v[r] for v, r in zip(drawn.verdict, rows, strict=True)]),
    )


def _whole(drawn: Pool, sizes: IntArray, laws: Laws, p: float) -> dict[str, Any]:
    """What an audit with all draws of the pool would say."""
    (estimate,) = judged([replications(drawn, sizes.tolist(), 1)], laws.names[1:])
    return {
        "whole": {
            "draws": int(sizes.sum()),
            "ratio": estimate.estimate / p,
            "status": str(estimate.status),
            "alarms": list(estimate.alarms),
            "working": None if estimate.working is None else [x / p for x in estimate.working],
            "certified": [x / p for x in estimate.certified],
        }
    }
