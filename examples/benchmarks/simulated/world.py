"""Prompts, laws and a judge that cost next to nothing, so that what is measured is the driver.

A prompt has a few hundred possible answers of three tokens; the first forty are harmful. The target's probability
of harm lies between 1e-5 and 0.3, by the prompt's number, and the proposal answers with harm between once in a
hundred and every other time. The laws are tables, so every log-probability is exact and the estimates can be held
against the truth.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tailrisk.config import Config
from tailrisk.records import FloatArray, JudgedTexts, Prompt, Samples
from tailrisk.seeds import derive_seed

NAMES = ("target", "rude")
ANSWERS, HARMFUL = 400, 40
LENGTH = 3
LEVELS = 64
TILTS = np.geomspace(0.01, 0.5, 16)
"""Of the proposal's answers, the part that is harmful; prompt number i has the one at i // ``LEVELS`` modulo 16."""

_SHAPE = np.geomspace(1.0, 30.0, HARMFUL)
_WITHIN = np.log(np.concatenate([_SHAPE / _SHAPE.sum(), np.full(ANSWERS - HARMFUL, 1 / (ANSWERS - HARMFUL))]))
_TOKENS = [np.array([1 + i // 20, 1 + i % 20, 0], dtype=np.int32) for i in range(ANSWERS)]
_TEXTS = [("harm" if i < HARMFUL else "no") + f" {i // 20} {i % 20}" for i in range(ANSWERS)]
_PLACE = np.array([20, 1, 0])


def risks() -> FloatArray:
    """[LEVELS] probabilities of harm under the target; prompt number i has the one at i modulo ``LEVELS``."""
    return np.geomspace(1e-5, 0.3, LEVELS)


def risk_of(prompt_id: str) -> float:
    return float(risks()[int(prompt_id.lstrip("p")) % LEVELS])


def write_prompts(path: Path, n: int) -> None:
    """n prompts as the JSON Lines file that an audit reads."""
    with path.open("w", encoding="utf-8") as file:
        for i in range(n):
            file.write(
                json.dumps({"id": f"p{i:06d}", "prompt": f"question {i}", "category": f"c{i % 10}"}) + "\n"
            )


def config_of(folder: Path, *, draws: int, models: int = 1, judges: int = 1, **budget: object) -> Config:
    """An audit in ``folder`` with ``draws`` in all; a batch holds 32 draws or more but for remainders."""
    pilot = {"pilot": 64, "batch": 64, "target_share": 0.5, "rounds": 1}
    return Config.model_validate(
        {
            "run": {"name": "scale", "dir": str(folder), "seed": 11},
            "target": {"model": "simulated", "dtype": "float32", "sampling": {"max_new_tokens": LENGTH}},
            "prompts": {"path": str(folder / "prompts.jsonl"), "category": "category"},
            "proposals": [{"name": "rude", "kind": "system_prompt", "text": "be rude"}],
            "judge": {"kind": "regex", "pattern": "harm"},
            "budget": {"draws": draws, **pilot, **budget},
            "tracking": {"uri": None},
            "cluster": {
                "models": {"min": models, "max": models, "num_cpus": 0},
                "judges": {"min": judges, "max": judges, "num_cpus": 0},
            },
        }
    ).at(folder)


@dataclass
class TableLaws:
    """Laws of ``NAMES``. A batch sleeps for ``sleep`` seconds, times a factor between 0.5 and 1.5 by its seed."""

    sleep: float = 0.0
    names: tuple[str, ...] = NAMES
    fingerprints: tuple[str, ...] = ("table-target", "table-rude")
    corrected: bool = False
    _risks: FloatArray = field(default_factory=risks)

    def sample(self, prompt: Prompt, component: int, n: int, seed: int) -> Samples:
        if self.sleep:
            time.sleep(sleep_of(self.sleep, seed))
        rng = np.random.default_rng(seed)
        harm = rng.random(n) < self._harm(prompt)[component]
        u = rng.random(n)
        bad = np.searchsorted(np.cumsum(_SHAPE / _SHAPE.sum()), u).clip(max=HARMFUL - 1)
        good = HARMFUL + (u * (ANSWERS - HARMFUL)).astype(np.int64)
        answers = np.where(harm, bad, good)
        return Samples(
            [_TOKENS[i] for i in answers],
            self._log_q(prompt, answers)[:, component],
            np.ones(n, dtype=np.bool_),
        )

    def log_prob(
        self, prompt: Prompt, tokens: Sequence[NDArray[np.int32]], components: Sequence[int] | None = None
    ) -> FloatArray:
        answers = (np.array(tokens) - [1, 1, 0]) @ _PLACE
        scores = self._log_q(prompt, answers)
        return scores if components is None else scores[:, list(components)]

    def texts(self, tokens: Sequence[NDArray[np.int32]]) -> list[str]:
        return [_TEXTS[i] for i in (np.array(tokens) - [1, 1, 0]) @ _PLACE]

    def _harm(self, prompt: Prompt) -> FloatArray:
        number = int(prompt.id[1:])
        return np.array([self._risks[number % LEVELS], TILTS[number // LEVELS % len(TILTS)]])

    def _log_q(self, prompt: Prompt, answers: NDArray[np.int64]) -> FloatArray:
        harm = self._harm(prompt)
        return _WITHIN[answers][:, None] + np.where(answers[:, None] < HARMFUL, np.log(harm), np.log1p(-harm))


@dataclass
class MakeLaws:
    """What a worker builds its laws with."""

    sleep: float = 0.0

    def __call__(self) -> TableLaws:
        return TableLaws(self.sleep)


class WordJudge:
    def judge(self, prompt: str, responses: Sequence[str]) -> JudgedTexts:
        verdicts = np.array([r.startswith("harm") for r in responses], dtype=np.int8)
        return JudgedTexts(verdicts, verdicts.astype(np.float64), [""] * len(responses))


def sleep_of(mean: float, seed: int) -> float:
    """Seconds that the batch with this seed sleeps."""
    return mean * (0.5 + derive_seed("sleep", seed) / 2**63)


def cpu_of(_: None) -> float:
    """Seconds of CPU of the process that answers: of all it has done, its start too."""
    return time.process_time()
