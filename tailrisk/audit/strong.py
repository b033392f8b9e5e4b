"""The strong judge's pass at the end of a round: whom to ask is chosen and logged, then asked.

The sample is a pure function of the configuration and of the log: of the round's draws and cheap verdicts, and of what
the strong judge said in earlier rounds. So estimates are unbiased given the past, and a run that ends between choosing
and asking goes on with the same sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tailrisk.audit.judging import JudgeWatch
from tailrisk.audit.protocols import Executor
from tailrisk.audit.state import AuditState
from tailrisk.records import JudgedTexts
from tailrisk.seeds import derive_seed
from tailrisk.stats.twostage import calls_of_round, choose, learn_rates
from tailrisk.store import Asked, RunStore, Sample, Told, texts_of

TOGETHER = 16
"""Answers to one prompt that go to the strong judge in one call."""


def plan_strong(state: AuditState) -> Asked | None:
    """Whom to ask about the draws of the last round; None if there is no strong judge, or it was asked already."""
    strong = state.config.strong_judge
    if strong is None or state.round < 0 or state.pending:
        return None
    entries = {
        i: ledger.entries[-1]
        for i, ledger in state.ledgers.items()
        if ledger.entries and ledger.entries[-1].round == state.round and ledger.entries[-1].unread
    }
    if not entries:
        return None
    corrected = state.laws.corrected
    rates = learn_rates([r for x in state.ledgers.values() for r in x.rounds], corrected=corrected)
    rounds = [entry.draws() for entry in entries.values()]
    drawn = sum(r.n for r in rounds)
    calls = calls_of_round(
        strong.calls,
        state.strong_calls,
        strong.least,
        drawn,
        state.draws_left if state.open_ledgers else 0,
        max(state.config.budget.rounds - state.round, 0) + 2,
    )
    seed = derive_seed(state.config.run.seed, "strong judge", state.round)
    chosen = choose(rounds, rates, least=strong.least, calls=calls, seed=seed, corrected=corrected)
    return Asked(
        reader="strong",
        round=state.round,
        confirmed=tuple(rates.confirmed.tolist()),
        least=strong.least,
        samples=tuple(
            Sample(i, tuple(c.rows.tolist()), tuple(c.inclusion[c.rows].tolist()))
            for i, c in zip(entries, chosen, strict=True)
        ),
    )


class Portion(NamedTuple):
    """Answers to one prompt that are judged in one call."""

    prompt_id: str
    round: int
    rows: tuple[int, ...]


def waiting(state: AuditState, *, failed: bool) -> list[Portion]:
    """What the strong judge has yet to say; with what it failed on, if ``failed``."""
    portions = []
    for i, ledger in state.ledgers.items():
        for entry in ledger.entries:
            rows = [] if entry.strong is None else entry.strong.waiting(failed=failed)
            portions += [
                Portion(i, entry.round, tuple(rows[a : a + TOGETHER])) for a in range(0, len(rows), TOGETHER)
            ]
    return portions


def texts(state: AuditState, store: RunStore, portions: Sequence[Portion]) -> list[list[str]]:
    """The answers of each portion."""
    places = []
    by_round = {(i, e.round): e for i, ledger in state.ledgers.items() for e in ledger.entries}
    wanted: dict[str, list[int]] = {}
    for p in portions:
        places.append([(f"{p.prompt_id}/{b}", i) for b, i in by_round[p.prompt_id, p.round].places(p.rows)])
        for key, i in places[-1]:
            wanted.setdefault(key, []).append(i)
    read = texts_of(store.folder, wanted) if portions else {}
    by_draw = {
        (key, i): text for key, rows in wanted.items() for i, text in zip(rows, read[key], strict=True)
    }
    return [[by_draw[place] for place in some] for some in places]


def ask(state: AuditState, executor: Executor, store: RunStore, portions: Sequence[Portion]) -> None:
    """Asks, and logs every answer before it counts. Raises JudgeError when the strong judge keeps failing."""
    watch = JudgeWatch("strong judge")
    answers = [(p.prompt_id, t) for p, t in zip(portions, texts(state, store, portions), strict=True)]
    for i, judged in executor.judge_strongly(answers):
        take(state, store, portions[i], judged)
        watch.count(judged.errors)
    watch.round_done()


def take(state: AuditState, store: RunStore, portion: Portion, judged: JudgedTexts) -> None:
    told = Told(
        reader="strong", round=portion.round, prompt_id=portion.prompt_id, rows=portion.rows, judged=judged
    )
    store.append_told(told)
    state.add_told(told)
