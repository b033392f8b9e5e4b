"""Estimates of prompts while others are drawn: by the driver between two batches, or by a process beside it.

In an audit of thousands of prompts the estimates cost more than all else that the driver does. So there they are made
elsewhere, some prompts at a time. What is computed, and from what, is the same, and so are the estimates; one that does
not come back is computed by the driver when it is asked for.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from tailrisk.audit.estimates import Question, answer, estimate_one
from tailrisk.audit.protocols import Beside, Executor, Helped, Running
from tailrisk.audit.state import AuditState, PromptLedger
from tailrisk.stats import Estimate

logger = logging.getLogger(__name__)

MANY = 1000
"""Prompts from which on a process of its own is worth its memory."""
TOGETHER, DRAWS = 32, 20_000
"""Prompts that travel together, and draws that they have in all; a prompt with more stays: it costs little a draw."""
MOST = 8
"""Portions on their way. When the other process falls behind, the driver helps itself."""


class _Portion(NamedTuple):
    """Ledgers, the moments that were asked about, and the answers to come."""

    ledgers: list[PromptLedger]
    moments: list[tuple[int, bool]]
    running: Running


class Estimator:
    """Estimates the prompts of a round as they are completed."""

    def __init__(self, state: AuditState, executor: Executor) -> None:
        self._state = state
        many = len(state.ledgers) >= MANY
        self._beside: Beside | None = executor.beside if many and isinstance(executor, Helped) else None
        self._next: list[tuple[PromptLedger, Question]] = []
        self._draws = 0
        self._on_way: deque[_Portion] = deque()

    def arrived(self, prompt_id: str) -> None:
        """A batch of the prompt has come: estimates it where that was the last one of the round."""
        ledger = self._state.ledgers[prompt_id]
        if not ledger.entries[-1].settled:
            return
        if self._beside is None or ledger.counted > DRAWS:
            estimate_one(self._state, ledger)
            return
        self._next.append((ledger, Question.of(self._state, ledger, ledger.rounds)))
        self._draws += ledger.counted
        if len(self._next) >= TOGETHER or self._draws >= DRAWS:
            self._send()

    def round_done(self) -> None:
        """Waits for what is on its way. What has not come by then is computed when it is asked for."""
        self._send()
        while self._on_way:
            self._take(self._on_way.popleft())

    def _send(self) -> None:
        while self._on_way and self._on_way[0].running.done:
            self._take(self._on_way.popleft())
        some, self._next, self._draws = self._next, [], 0
        if not some:
            return
        ledgers, questions = [ledger for ledger, _ in some], [question for _, question in some]
        if self._beside is None or len(self._on_way) >= MOST:
            for ledger in ledgers:
                estimate_one(self._state, ledger)
            return
        running = self._beside.start(answer_all, questions)
        self._on_way.append(_Portion(ledgers, [x.moment for x in ledgers], running))

    def _take(self, portion: _Portion) -> None:
        try:
            estimates = portion.running.value()
        except Exception as error:
            logger.warning(
                "the process beside the driver is given up, its estimates are made here: %s", error
            )
            self._beside = None
            self._on_way.clear()
            return
        for ledger, moment, estimate in zip(portion.ledgers, portion.moments, estimates, strict=True):
            ledger.estimate = moment, estimate


def answer_all(questions: Sequence[Question]) -> list[Estimate]:
    return [answer(question) for question in questions]
