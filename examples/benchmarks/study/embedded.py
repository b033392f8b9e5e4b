"""The same questions on the embedded language model: openings whose probability is known by enumeration.

Answers end where the event is decided, after two or three tokens. So few answers differ that every audit would
say so; what is asked here is bias and whether certified intervals hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from truth.embeddedlm import laws_of, plain_model, pool, replications
from truth.openings import EVENTS, Opening, opening_truth, replicated

from study.trust import judged, summary, z_of
from tailrisk.judges import build_judge
from tailrisk.stats import control_mean, event_mean


def openings(times: int, names: Sequence[str] | None = None, *, seed: int = 11) -> list[dict[str, Any]]:
    """One row an event."""
    plain = plain_model()
    return [
        _opening(event, opening_truth(event, plain).probability, times, seed)
        for event in EVENTS
        if names is None or event.name in names
    ]


def _opening(event: Opening, p: float, times: int, seed: int) -> dict[str, Any]:
    event, counts = replicated(event)
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
    }
