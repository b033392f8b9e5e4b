"""What the estimates of a run mean in deployment: the forecast from its records, and the one saved beside them."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tailrisk.errors import StoreError
from tailrisk.records import FloatArray, Status
from tailrisk.report.tables import Row, row
from tailrisk.stats.forecast import Evidence, Plain, forecast, plain_ends, prompt_confidence
from tailrisk.stats.intervals import t_quantile
from tailrisk.traffic import Audited, Traffic

NAME = "forecast.json"
VERSION = 1
"""Of the file; another one's is not shown."""
QUERIES = 1e6
"""Of a forecast nobody asked for."""
QUOTED = (Status.OK, Status.BUDGET_EXHAUSTED)
UNKNOWN = (Status.UNRELIABLE, Status.FAILED)
Records = Sequence[Mapping[str, Any]]


def make_forecast(
    records: Records,
    traffic: Traffic,
    queries: float,
    *,
    seed: int,
    draws: int = 400,
    ends: tuple[FloatArray, FloatArray] | None = None,
) -> dict[str, Any]:
    """The forecast as JSON values. ``records``: the estimates of estimates.json. ``ends`` [m]: certified ends of all
    prompts at ``prompt_confidence``, computed from the log; without them they are those of the target's own draws.

    ``ConfigError``: the traffic names what is not there.
    """
    listed = [row(record) for record in records]
    audited = [
        Audited(str(r["prompt_id"]), r.get("group") or None, r.get("category") or None) for r in records
    ]
    weight = np.array(traffic.shares(audited))
    evidence = evidence_of(listed, audited)
    plain = plain_of(listed)
    source = "every draw of the run"
    if ends is None:
        alpha = 1 - prompt_confidence(evidence.confidence, len(listed))
        source = "the target's own draws"
        if plain is None:
            ends, source = (np.zeros(len(listed)), np.ones(len(listed))), ""
        else:
            ends = plain_ends(plain, alpha)
    found = forecast(evidence, weight, ends, plain, queries, np.random.default_rng(seed), draws).to_json()
    by_status = {s.value: float(weight[[r.status is s for r in listed]].sum()) for s in Status}
    found["traffic"] = {
        "mix": traffic.in_words(),
        "kind": traffic.kind or "uniform",
        "weights": dict(traffic.weights),
        "assumed_harmless": traffic.harmless,
        "by_status": by_status,
        "unknown": float(weight[[r.status in UNKNOWN for r in listed]].sum()),
        "bound_only": float(weight[[r.status is Status.BOUND_ONLY for r in listed]].sum()),
    }
    found["certified"]["from"] = source
    found["prompts"] = len(listed)
    return found


def evidence_of(listed: Sequence[Row], audited: Sequence[Audited]) -> Evidence:
    """The rows as evidence; an estimate is quoted where its status allows it."""
    estimate, scale = np.full(len(listed), np.nan), np.full(len(listed), np.nan)
    for i, r in enumerate(listed):
        if r.status in QUOTED and r.estimate > 0 and r.working and r.working[0] > 0:
            estimate[i], scale[i] = r.estimate, _relative_error(r, r.working)
    groups = [a.group or f"\0{a.id}" for a in audited]
    return Evidence(
        estimate,
        scale,
        np.array([max(r.ess - 1, 1.0) for r in listed]),
        np.array([r.certified[0] for r in listed]),
        np.array([r.certified[1] for r in listed]),
        np.unique(groups, return_inverse=True)[1] if groups else np.empty(0, dtype=np.int64),
        np.array([r.status in UNKNOWN for r in listed]),
        confidence=listed[0].confidence if listed else 0.95,
    )


def _relative_error(r: Row, working: tuple[float, float]) -> float:
    """From the working interval's wider side, in logarithms: judge's error and undetermined answers are in it."""
    t = t_quantile(r.confidence, max(r.ess - 1, 1.0))
    down = math.log(r.estimate / working[0])
    up = math.log(working[1] / r.estimate) if working[1] < 1 else 0.0
    return max(down, up, 1e-3) / t


def plain_of(listed: Sequence[Row]) -> Plain | None:
    """The target's own draws; None where a hit of theirs is not simply harm (a strong judge, a judge's error)."""
    if any(r.strong is not None or r.judged is not None for r in listed):
        return None
    own = [next(iter(r.components.values()), {}) if r.target_draws else {} for r in listed]
    draws = np.array([r.target_draws for r in listed], dtype=np.int64)
    hits = np.array([int(c.get("hits", 0)) for c in own], dtype=np.int64)
    unsure = np.array([r.undetermined for r in listed], dtype=np.int64)
    return Plain(draws, hits, np.minimum(unsure, draws - hits))


def digest_of(records: Records) -> str:
    """Tells whether a saved forecast is of these estimates."""
    kept = [[r["prompt_id"], r.get("estimate"), r.get("certified"), r.get("status")] for r in records]
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:16]


def saved_forecast(folder: Path, records: Records) -> dict[str, Any] | None:
    """forecast.json of the run, if it is of these estimates. ``StoreError``: it cannot be read."""
    path = folder / NAME
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        fits = found["version"] == VERSION and found["estimates"] == digest_of(records)
        return found if fits else None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path}: cannot be read ({error}); run tailrisk forecast again") from error
