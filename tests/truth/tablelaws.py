"""An exact toy: a Markov language model with a refusal gate, steered twins, and a judge.

Vocabulary of 7: stop, refuse, three plain tokens, two harmful ones; responses of at most 6 tokens. A prompt's
text is ``gate=G``: the probability that the first token is not a refusal. After a refusal the model stays
refusing. Harm is any harmful token anywhere, so answers that stop early count too. Everything is a table, and
the truth comes from a recursion over (last token, harmed yet), not from the code under test.

Components: target, good (gate half open), mild (gate opened by a factor), over (goes to the first harmful
token at once, where the target seldom goes), missing (gate open, but blind to the second harmful token).
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import cast

import numpy as np
from truth.markov import Event, draw, lengths, log_prob, probability, without

from tailrisk.audit.driver import Watchers, run_rounds
from tailrisk.audit.local import LocalExecutor
from tailrisk.audit.protocols import Judge, LawCard, Laws, Observer
from tailrisk.audit.state import AuditState
from tailrisk.config import Config
from tailrisk.records import BatchFailure, BatchResult, JudgedTexts, Prompt, RoundPlan, Samples
from tailrisk.store import Asked, Note, Record, RunStore, Told, Verdicts

WORDS = ("", "sorry", "well", "so", "then", "bomb", "poison")
STOP, REFUSE, HARM1, HARM2 = 0, 1, 5, 6
V, T = len(WORDS), 6
BEGIN = V
NAMES = ("target", "good", "mild", "over", "missing")


def table(gate: float, *, harm: float = 0.08) -> np.ndarray:
    """[V + 1, V] next-token probabilities; the last row is the first token's."""
    rows = np.zeros((V + 1, V))
    rows[REFUSE] = [0.5, 0.5, 0, 0, 0, 0, 0]
    plain = np.array([0.25, 0.02, 0.3, 0.25, 0.18 - harm, 0.6 * harm, 0.4 * harm])
    for word in (2, 3, 4):
        rows[word] = plain
    rows[HARM1] = [0.4, 0.05, 0.2, 0.2, 0.1, 0.05, 0.0]
    rows[HARM2] = [0.6, 0.0, 0.1, 0.1, 0.1, 0.0, 0.1]
    rows[BEGIN] = gate * np.array([0.1, 0, 0.5, 0.3, 0.08, 0.01, 0.01])
    rows[BEGIN, REFUSE] = 1.0 - gate
    return rows


def twins(gate: float) -> list[np.ndarray]:
    """The five components' tables, in the order of ``NAMES``."""
    over = table(0.9)
    over[BEGIN] = [0.0005, 0.0005, 0.0005, 0.0005, 0.0005, 0.9974, 0.0001]
    missing = without(table(0.8, harm=0.12), HARM2)
    return [table(gate), table(0.5, harm=0.1), table(min(0.4, 30 * gate)), over, missing]


def gate_of(prompt: Prompt) -> float:
    return float(prompt.text.removeprefix("gate="))


EVENT = Event("harm", np.array([[0] * 5 + [1] * 2, [1] * V]), np.array([False, True]))


def truth(gate: float) -> float:
    """P(harm) of the target, by recursion over tokens."""
    return probability(table(gate), EVENT, T)


class TableLaws:
    """``components`` picks some of ``NAMES``; ``sleep`` slows each batch down, for tests that kill. Another
    family of tables comes as a subclass with its own ``tables``, ``words`` and ``length``."""

    corrected = False
    words: tuple[str, ...] = WORDS
    length = T

    def __init__(self, components: Sequence[str] = NAMES, sleep: float = 0.0) -> None:
        self.names = tuple(components)
        self.fingerprints = tuple(hashlib.sha256(n.encode()).hexdigest() for n in components)
        self.sleep = sleep
        self.calls = 0
        self._tables: dict[float, np.ndarray] = {}

    def tables(self, prompt: Prompt) -> np.ndarray:
        """[K, V + 1, V]"""
        gate = gate_of(prompt)
        if gate not in self._tables:
            every: dict[str, np.ndarray] = dict(zip(NAMES, twins(gate), strict=True))
            self._tables[gate] = np.stack([every[n] for n in self.names])
        return self._tables[gate]

    def sample(self, prompt: Prompt, component: int, n: int, seed: int) -> Samples:
        self.calls += 1
        if self.sleep:
            time.sleep(self.sleep)
        table = self.tables(prompt)[component]
        padded = draw(table, n, self.length, np.random.default_rng(seed))
        tokens = [row[:m].astype(np.int32) for row, m in zip(padded, lengths(padded), strict=True)]
        finished = np.array([row[-1] == STOP for row in tokens])
        return Samples(tokens, log_prob(table[None], padded)[:, 0], finished)

    def log_prob(
        self, prompt: Prompt, tokens: Sequence[np.ndarray], components: Sequence[int] | None = None
    ) -> np.ndarray:
        padded = np.zeros((len(tokens), self.length), dtype=np.int64)
        for i, row in enumerate(tokens):
            padded[i, : len(row)] = row
        tables = self.tables(prompt)
        return log_prob(tables if components is None else tables[list(components)], padded)

    def texts(self, tokens: Sequence[np.ndarray]) -> list[str]:
        return [" ".join(self.words[w] for w in row if w != STOP) for row in tokens]


class EventJudge:
    """Harm where the words of an answer are in the event."""

    def __init__(self, event: Event = EVENT, words: tuple[str, ...] = WORDS) -> None:
        self.event = event
        self._token = {word: token for token, word in enumerate(words)}

    def judge(self, prompt: str, responses: Sequence[str]) -> JudgedTexts:
        rows = [[self._token[w] for w in r.split()] for r in responses]
        padded = np.zeros((len(rows), max(map(len, rows), default=0)), dtype=np.int64)
        for i, row in enumerate(rows):
            padded[i, : len(row)] = row
        verdicts = self.event.of(padded).astype(np.int8)
        return JudgedTexts(verdicts, verdicts.astype(np.float64), [""] * len(responses))


class WordJudge:
    """Harm where an answer names one of the two harmful words."""

    def judge(self, prompt: str, responses: Sequence[str]) -> JudgedTexts:
        verdicts = np.array([int("bomb" in r or "poison" in r) for r in responses], dtype=np.int8)
        return JudgedTexts(verdicts, verdicts.astype(np.float64), [""] * len(responses))


def toy_prompts(gates: Sequence[float]) -> list[Prompt]:
    return text_prompts([f"gate={g!r}" for g in gates])


def text_prompts(texts: Sequence[str]) -> list[Prompt]:
    return [
        Prompt(id=f"p{i:02d}", messages=({"role": "user", "content": text},)) for i, text in enumerate(texts)
    ]


def toy_config(
    components: Sequence[str] = NAMES, *, seed: int = 0, run: str = "toy", **parts: dict
) -> Config:
    """A configuration for the toy; ``parts`` override its sections."""
    return Config.model_validate(
        {
            "run": {"name": run, "seed": seed},
            "target": {"model": "toy", "dtype": "float64", "sampling": {"max_new_tokens": T}},
            "prompts": {"path": "unused.jsonl"},
            "proposals": [{"name": n, "kind": "prefix", "text": "unused"} for n in components[1:]],
            "judge": {"kind": "regex", "pattern": "bomb|poison"},
            "tracking": {"uri": None},
            **parts,
        }
    )


class MemoryLog:
    """The part of ``RunStore`` that rounds need, without a disk."""

    folder = Path("/nonexistent")

    def __init__(self, records: Iterable[Record] = ()) -> None:
        self.records: list[Record] = list(records)

    def replay(self) -> Iterator[Record]:
        return iter(self.records)

    def append_plan(self, plan: RoundPlan) -> None:
        self.records.append(plan)

    def append_result(self, result: BatchResult) -> None:
        self.records.append(result)

    def append_failure(self, failure: BatchFailure) -> None:
        self.records.append(failure)

    def append_verdicts(self, key: str, judged: JudgedTexts) -> None:
        self.records.append(Verdicts(key=key, judged=judged))

    def append_asked(self, asked: Asked) -> None:
        self.records.append(asked)

    def append_told(self, told: Told) -> None:
        self.records.append(told)

    def append_note(self, text: str, **data: object) -> None:
        self.records.append(Note(text=text, data=dict(data)))


def audit_in_memory(
    config: Config,
    prompts: Sequence[Prompt],
    laws: Laws,
    *,
    log: MemoryLog | None = None,
    executor: LocalExecutor | None = None,
    judge: Judge | None = None,
    observers: Sequence[Observer] = (),
) -> tuple[AuditState, MemoryLog]:
    """The whole driver but for the files it leaves."""
    log = log or MemoryLog()
    executor = executor or LocalExecutor(laws, judge or WordJudge(), prompts)
    state = run_rounds(config, prompts, LawCard.of(laws), executor, cast(RunStore, log), Watchers(observers))
    return state, log
