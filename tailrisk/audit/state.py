"""What the log says, as numbers in memory: ledgers of prompts, budget spent, what is still to come.

The state is built by ``add_plan``, ``add_outcome`` and ``add_verdicts``, live and in replay alike, and does
not depend on the order in which a round's batches arrive: a round of a prompt enters its ledger when its
last batch is there, with draws sorted by (component, batch index). Texts and tokens are not kept.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from tailrisk.audit.protocols import UNKNOWN, LawCard, Processor
from tailrisk.audit.readers import Reading, Second
from tailrisk.audit.rounds import BatchNumbers, PromptRound
from tailrisk.config import Config
from tailrisk.errors import ModelError, StoreError
from tailrisk.records import (
    Batch,
    BatchFailure,
    BatchResult,
    Prompt,
    PromptPlan,
    RoundPlan,
)
from tailrisk.stats import Estimate, RoundDraws
from tailrisk.stats.judgeerror import JudgeBounds
from tailrisk.store import Asked, Told


class PromptLedger:
    """One prompt's rounds. ``version`` grows with every change, so that numbers can be cached by it."""

    def __init__(self, prompt: Prompt, components: int) -> None:
        self.prompt = prompt
        self.entries: list[PromptRound] = []
        self.next_index = [0] * components
        self.failed: str | None = None
        self.version = 0
        self.estimate: tuple[tuple[int, bool], Estimate] | None = None
        """The last estimate and what it was computed for; see ``tailrisk.audit.estimates``."""

    @property
    def components(self) -> tuple[int, ...]:
        """The components that the prompt's estimate rests on, in the order of the columns of ``rounds``."""
        return tuple(range(len(self.next_index))) if self.restriction is None else self.restriction

    @property
    def restriction(self) -> tuple[int, ...] | None:
        """``components`` as the plans say it: None where all count."""
        return next((e.plan.components for e in self.entries if e.plan.mass > 0), None)

    @property
    def mass_left(self) -> float:
        """The part of the estimate's weight that no round has been given yet."""
        if self.closed:
            return 0.0
        return 1.0 - math.fsum(e.plan.mass for e in self.entries)

    @property
    def closed(self) -> bool:
        return bool(self.entries) and self.entries[-1].plan.final

    @property
    def open(self) -> bool:
        """May take more draws: neither closed by a final round nor failed."""
        return self.failed is None and not self.closed

    @property
    def moment(self) -> tuple[int, bool]:
        """What an estimate was computed for: it holds for as long as this stays the same."""
        return self.version, self.open

    @property
    def rounds(self) -> list[RoundDraws]:
        """The draws of every settled round that the estimate rests on: those with a mass. Made anew each time."""
        return [e.draws() for e in self.entries if e.settled and e.plan.mass > 0]

    @property
    def mass(self) -> float:
        """The part of the estimate's weight that ``rounds`` have."""
        return sum(e.plan.mass for e in self.entries if e.settled and e.plan.mass > 0)

    @property
    def counted(self) -> int:
        """Draws of ``rounds``."""
        return sum(e.n for e in self.entries if e.settled and e.plan.mass > 0)

    @property
    def searches(self) -> list[RoundDraws]:
        """The draws of every complete round of mass 0, which are for choosing only."""
        return [e.draws() for e in self.entries if e.complete and e.plan.mass == 0]

    def numbers(self) -> Iterator[tuple[int, BatchNumbers]]:
        """(component, numbers) of every batch that arrived, in canonical order."""
        for entry in self.entries:
            yield from entry.numbers()

    @property
    def draws(self) -> int:
        return sum(e.n for e in self.entries)

    @property
    def tokens(self) -> int:
        return sum(e.tokens for e in self.entries)


class AuditState:
    """The whole audit. ``round`` is the last planned round (-1: none yet)."""

    def __init__(self, config: Config, prompts: Sequence[Prompt], laws: LawCard) -> None:
        self.config = config
        self.laws = laws
        self.judge: JudgeBounds | None = None
        """What is known of the judge's error; changes what estimates say, and no plan."""
        self.ledgers = {p.id: PromptLedger(p, len(laws.names)) for p in prompts}
        self.round = -1
        self.plan: RoundPlan | None = None
        self.pending: dict[str, Batch] = {}
        """Batches of the last plan that have no outcome yet, in the order of the plan."""
        self.search_rounds = 0
        """Rounds at the beginning whose draws are all for choosing only."""
        self.draws_planned = 0
        self.tokens = 0
        """Generated tokens of all batches in the log."""
        self.unjudged: dict[str, int] = {}
        """Batch key -> number of its draws the judge failed on."""
        self.answers = 0
        """Answers of which verdicts were wanted, those wanted again included."""
        self.judge_calls = 0
        """Of how many of these the judge was asked; the others had been judged before."""
        self.processors: dict[str, Processor] = {}
        """By worker, what the log says of it."""
        self.draws_on: dict[Processor, int] = {}
        """Draws by what computed them."""
        self._tokens_lost = 0
        self._entries: dict[str, PromptRound] = {}
        strong = config.strong_judge
        self._second = None if strong is None else Second(strong.least, laws.corrected)
        self.strong_calls = 0
        """Draws that the strong judge was asked about."""

    @property
    def max_new_tokens(self) -> int:
        return self.config.target.sampling.max_new_tokens

    @property
    def open_ledgers(self) -> list[PromptLedger]:
        return [ledger for ledger in self.ledgers.values() if ledger.open]

    @property
    def draws(self) -> int:
        """Draws in the log."""
        return sum(ledger.draws for ledger in self.ledgers.values())

    @property
    def draws_left(self) -> int:
        """Draws that may still be planned; those of failed batches are spent."""
        return self.config.budget.draws - self.draws_planned

    @property
    def tokens_left(self) -> int | None:
        """Generated tokens that may still be planned, pending and failed batches taken at their longest."""
        if self.config.budget.tokens is None:
            return None
        reserved = sum(b.size for b in self.pending.values()) * self.max_new_tokens
        return self.config.budget.tokens - self.tokens - self._tokens_lost - reserved

    def add_plan(self, plan: RoundPlan) -> None:
        if plan.round != self.round + 1 or self.pending:
            raise StoreError(
                f"the log plans round {plan.round} after round {self.round} "
                f"with {len(self.pending)} batches unfinished; it was not written by an audit"
            )
        if plan.round == self.search_rounds and not any(p.mass for p in plan.prompts):
            self.search_rounds += 1
        self.round = plan.round
        self.plan = plan
        entries = {p.prompt_id: PromptRound(plan.round, p, self._second) for p in plan.prompts}
        self._entries = entries
        for batch in plan.batches:
            ledger = self._ledger(batch)
            entries[batch.prompt_id].expect(batch.component, batch.index)
            ledger.next_index[batch.component] = max(ledger.next_index[batch.component], batch.index + 1)
            self.pending[batch.key] = batch
            self.draws_planned += batch.size
        for prompt_id, entry in entries.items():
            ledger = self.ledgers[prompt_id]
            _check_components(entry.plan, ledger)
            ledger.entries.append(entry)
            ledger.version += 1

    def add_outcome(self, outcome: BatchResult | BatchFailure) -> bool:
        """Takes in a batch's outcome; False where the batch had one before (a twin changes nothing)."""
        batch = outcome.batch
        ledger = self._ledger(batch)
        if batch.key not in self.pending:
            return False
        if isinstance(outcome, BatchFailure):
            if ledger.failed is None or outcome.reason < ledger.failed:
                ledger.failed = outcome.reason
            self._tokens_lost += batch.size * self.max_new_tokens
        else:
            self._add_result(outcome)
        del self.pending[batch.key]
        ledger.version += 1
        return True

    def add_verdicts(
        self, key: str, verdicts: NDArray[np.int8], errors: Sequence[str], calls: int | None = None
    ) -> None:
        """Replaces the verdicts of a batch of which those that the judge had failed on were judged again. ``calls``:
        of how many of these it was asked (None: of all)."""
        prompt_id, component, index = key.rsplit("/", 2)
        for entry in self.ledgers[prompt_id].entries:
            if entry.judge(int(component), int(index), np.asarray(verdicts, dtype=np.int8)):
                again = self.unjudged.get(key, 0)
                self.answers += again
                self.judge_calls += again if calls is None else calls
                self._note_unjudged(key, errors)
                self.ledgers[prompt_id].version += 1
                return
        raise StoreError(f"verdicts for batch {key}, which is not in the log")

    def add_asked(self, asked: Asked) -> None:
        """Takes in the samples that a second reader has of a round."""
        for sample in asked.samples:
            entry, ledger = self._entry(sample.prompt_id, asked.round), self.ledgers[sample.prompt_id]
            reading = Reading(sample, asked.confirmed, asked.least)
            if asked.reader == "review":
                entry.review = reading
            else:
                entry.strong = reading
                self.strong_calls += len(sample.rows)
            ledger.version += 1

    def add_told(self, told: Told) -> None:
        entry = self._entry(told.prompt_id, told.round)
        reading = entry.review if told.reader == "review" else entry.strong
        if reading is None:
            raise StoreError(
                f"verdicts on draws of {told.prompt_id!r}, round {told.round}, that nobody asked for"
            )
        reading.tell(told.rows, told.judged)
        self.ledgers[told.prompt_id].version += 1

    def _entry(self, prompt_id: str, round_: int) -> PromptRound:
        ledger = self.ledgers.get(prompt_id)
        for entry in () if ledger is None else ledger.entries:
            if entry.round == round_:
                return entry
        raise StoreError(f"the log has a sample of {prompt_id!r}, round {round_}, which is not in it")

    def _add_result(self, result: BatchResult) -> None:
        batch = result.batch
        tokens = result.generated_tokens
        if tokens > batch.size * self.max_new_tokens:
            raise ModelError(
                f"batch {batch.key}: {tokens} tokens in {batch.size} draws, more than "
                f"max_new_tokens ({self.max_new_tokens}) each"
            )
        numbers = BatchNumbers(result.log_q, result.log_q_sample, result.verdicts, tokens, result.seconds)
        self._entries[batch.prompt_id].add(batch.component, batch.index, numbers)
        processor = self.processors.get(result.worker, UNKNOWN)
        self.draws_on[processor] = self.draws_on.get(processor, 0) + result.n
        self.tokens += tokens
        self.answers += result.n
        self.judge_calls += result.n if result.judge_calls is None else result.judge_calls
        self._note_unjudged(batch.key, result.judge_errors)

    def _note_unjudged(self, key: str, errors: Sequence[str]) -> None:
        if failed := sum(map(bool, errors)):
            self.unjudged[key] = failed
        else:
            self.unjudged.pop(key, None)

    def _ledger(self, batch: Batch) -> PromptLedger:
        try:
            return self.ledgers[batch.prompt_id]
        except KeyError:
            raise StoreError(f"batch {batch.key} is of a prompt that this audit does not have") from None


def _check_components(plan: PromptPlan, ledger: PromptLedger) -> None:
    """Weights of a round need the scores of every component that draws, in all rounds with a mass alike."""
    before = [e.plan.components for e in ledger.entries if e.plan.mass > 0]
    left_out = any(c for k, c in enumerate(plan.counts) if plan.components and k not in plan.components)
    if left_out or (plan.mass > 0 and before and before[-1] != plan.components):
        raise StoreError(
            f"the log plans draws of prompt {plan.prompt_id!r} without scores of all components that its "
            "estimate rests on; it was not written by an audit"
        )
