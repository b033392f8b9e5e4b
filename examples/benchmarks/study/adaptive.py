"""The whole driver: shares by results, prompts closed by results, intervals watched at the end of every round."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from truth import gate
from truth.tablelaws import EventJudge, audit_in_memory, text_prompts, toy_config

from study.trust import holds, z_of
from study.worlds import FAMILIES
from tailrisk.audit.estimates import estimate_all
from tailrisk.audit.protocols import Silent
from tailrisk.audit.state import AuditState
from tailrisk.config import RunConfig
from tailrisk.records import Status
from tailrisk.stats import Estimate

PLACES = ((1e-2, 1), (1e-4, 1), (1e-4, 8), (1e-6, 4))
"""Probability and depth of the gate of the audited prompts."""
LOG_WIDTH = 1.0
DRAWS = 1500


class _EveryRound(Silent):
    """Whether each prompt's certified interval has held the truth at every round end so far."""

    def __init__(self, truths: Sequence[float]) -> None:
        self.truths = truths
        self.held = [True] * len(truths)

    def round_finished(self, state: AuditState, estimates: Sequence[Estimate]) -> None:
        self.held = [
            h and holds(e.certified, p) for h, e, p in zip(self.held, estimates, self.truths, strict=True)
        ]


def audits(family: str, times: int, *, event: str = "any", seed: int = 0) -> list[dict[str, Any]]:
    """One row a prompt over ``times`` audits."""
    names = ("target", *FAMILIES[family])
    gates = [gate.opened_for(p, event, d) for p, d in PLACES]
    truths = [gate.truth(g, event, d) for g, (_, d) in zip(gates, PLACES, strict=True)]
    prompts = text_prompts([gate.text(g, d) for g, (_, d) in zip(gates, PLACES, strict=True)])
    laws = gate.GateLaws(names)
    target = {"model": "toy", "dtype": "float64", "sampling": {"max_new_tokens": gate.LENGTH}}
    budget = {"draws": DRAWS * len(prompts), "pilot": 64, "batch": 4096}
    config = toy_config(names, target=target, budget=budget, stop={"log_width": LOG_WIDTH})
    judge = EventJudge(gate.EVENTS[event], gate.WORDS)
    ends: list[list[Estimate]] = []
    held: list[list[bool]] = []
    for i in range(times):
        watch = _EveryRound(truths)
        one = config.model_copy(update={"run": RunConfig(seed=seed + i)})
        state, _ = audit_in_memory(one, prompts, laws, judge=judge, observers=[watch])
        ends.append(estimate_all(state))
        held.append(watch.held)
    rows = []
    for j, (p, (_, depth)) in enumerate(zip(truths, PLACES, strict=True)):
        estimates = [e[j] for e in ends]
        ratio = np.array([e.estimate for e in estimates]) / p
        shown = [e.working for e in estimates if e.working is not None]
        near = (ratio > 1 / 1.5) & (ratio < 1.5)
        # An interval that is only wider than asked is shown, and is no alarm.
        doubted = np.array([e.status not in (Status.OK, Status.BUDGET_EXHAUSTED) for e in estimates])
        rows.append(
            {
                "p": p,
                "depth": depth,
                "replications": times,
                "draws": float(np.mean([e.draws for e in estimates])),
                "ratio": z_of(ratio),
                "certified_always_held": float(np.mean([h[j] for h in held])),
                "working_shown": len(shown),
                "working_covers": sum(holds(w, p) for w in shown),
                "low": float(np.mean(ratio < 1 / 3)),
                "low_and_believed": float(np.mean((ratio < 1 / 3) & ~doubted)),
                "false_alarms": float(np.mean(near & doubted)),
                "ok": float(np.mean([e.status == Status.OK for e in estimates])),
            }
        )
    return rows
