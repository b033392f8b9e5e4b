"""Methods: what to draw next, one planner each, by the configuration's ``method.kind``.

A planner is a pure function of the state, that is of the configuration and of the log: no clock, no chance but
the run's seed. Adding a method means a class in ``tailrisk.config``, a file here and a line in ``METHODS``.
"""

from __future__ import annotations

from collections.abc import Callable

from tailrisk.audit import planner
from tailrisk.audit.methods import paper, search
from tailrisk.audit.state import AuditState
from tailrisk.records import RoundPlan

METHODS: dict[str, Callable[[AuditState], RoundPlan | None]] = {
    "mixture": planner.plan_round,
    "paper": paper.plan_round,
    "search": search.plan_round,
}


def plan_round(state: AuditState) -> RoundPlan | None:
    """The next round of the configured method; None when nothing is left to do.

    Every batch planned before must have an outcome. Raises ConfigError if the budget does not hold what the
    method must draw.
    """
    if state.pending:
        raise ValueError(f"round {state.round} has {len(state.pending)} batches without an outcome")
    return METHODS[state.config.method.kind](state)
