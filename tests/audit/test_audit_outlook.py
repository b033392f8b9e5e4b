"""What a prompt is forecast to want, where its draws are of an unusual kind."""

from __future__ import annotations

import numpy as np
from truth.tablelaws import MemoryLog, TableLaws, audit_in_memory, toy_config, toy_prompts

from tailrisk.records import Samples, Status


class OneAnswer(TableLaws):
    """A target that refuses and a proposal that gives the same harmful answer each time."""

    def sample(self, prompt, component, n, seed):
        token = 1 if component == 0 else 5
        return Samples([np.array([token, 0], dtype=np.int32)] * n, np.full(n, -0.1), np.ones(n, dtype=bool))

    def log_prob(self, prompt, tokens, components=None):
        rows = np.array([[-0.1, -9.0] if t[0] == 1 else [-12.0, -0.1] for t in tokens])
        return rows if components is None else rows[:, list(components)]


def test_one_answer_again_and_again_shows_no_variance_and_stops_no_audit():
    names = ("target", "good")
    config = toy_config(names, budget={"draws": 4 * 16, "pilot": 8, "rounds": 4, "target_share": 0.5})
    state, _ = audit_in_memory(config, toy_prompts([1e-4] * 4), OneAnswer(names), log=MemoryLog())
    for ledger in state.ledgers.values():
        assert ledger.closed and ledger.estimate is not None
        estimate = ledger.estimate[1]
        assert estimate.hits >= 4 and estimate.standard_error == 0.0
        assert estimate.status == Status.UNRELIABLE and "distinct" in estimate.alarms
