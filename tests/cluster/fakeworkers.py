"""Light laws and judges for the workers: numbers from the batch's seed, faults named by the prompt's id.

A prompt called ``poison-*`` ends the worker's process, ``raise-*`` raises, ``odd-*`` gives a ModelError,
``hang-*`` never returns, ``once-*`` ends the process the first time only, ``cuda-*`` raises an error that
spoils the process. Every attempt is one line in ``folder/attempts``.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tailrisk.config import Config
from tailrisk.errors import ModelError
from tailrisk.records import Batch, JudgedTexts, Prompt, Samples
from tailrisk.seeds import derive_seed

CANARY = "canary-harmful-text"


@dataclass
class FakeLaws:
    folder: Path
    sleep: float = 0.0
    fingerprints: tuple[str, ...] = ("a", "b")
    names: tuple[str, ...] = ("target", "rude")
    corrected: bool = False
    processor: str = "fake unit"
    spoiled: bool = field(default=False, init=False)

    def sample(self, prompt: Prompt, component: int, n: int, seed: int) -> Samples:
        note(self.folder, prompt.id)
        time.sleep(self.sleep)
        self._fault(prompt.id)
        rng = np.random.default_rng(seed)
        tokens = [rng.integers(1, 9, size=rng.integers(1, 5)).astype(np.int32) for _ in range(n)]
        return Samples(tokens, self._log_p(tokens, component), np.ones(n, dtype=np.bool_))

    def log_prob(
        self, prompt: Prompt, tokens: Sequence[np.ndarray], components: Sequence[int] | None = None
    ) -> np.ndarray:
        asked = range(len(self.names)) if components is None else components
        return np.stack([self._log_p(tokens, k) for k in asked], axis=1)

    def texts(self, tokens: Sequence[np.ndarray]) -> list[str]:
        return [f"{CANARY} {' '.join(map(str, t))}" for t in tokens]

    def _log_p(self, tokens: Sequence[np.ndarray], component: int) -> np.ndarray:
        return np.array([-(1.0 + 0.1 * component) * len(t) for t in tokens], dtype=np.float64)

    def _fault(self, prompt_id: str) -> None:
        kind = prompt_id.split("-")[0]
        if self.spoiled:
            raise RuntimeError("CUDA error: device-side assert triggered (earlier)")
        if kind == "poison":
            os._exit(1)
        elif kind == "raise":
            raise ValueError("not good")
        elif kind == "odd":
            raise ModelError("non-finite logits at token 3")
        elif kind == "hang":
            time.sleep(1e6)
        elif kind == "once" and attempts(self.folder)[prompt_id] == 1:
            os._exit(1)
        elif kind == "cuda" and attempts(self.folder)[prompt_id] == 1:
            self.spoiled = True
            raise RuntimeError("CUDA error: device-side assert triggered")


@dataclass
class MakeLaws:
    """What the executor sends to the workers. ``differ``: every worker holds laws of its own."""

    folder: Path
    sleep: float = 0.0
    differ: bool = False

    def __call__(self) -> FakeLaws:
        laws = FakeLaws(self.folder, self.sleep)
        if self.differ:
            laws.fingerprints = ("a", f"b{os.getpid()}")
        return laws


class CheckpointLaws(FakeLaws):
    """The law of another model; of seven draws it cannot say the probability."""

    def _log_p(self, tokens: Sequence[np.ndarray], component: int) -> np.ndarray:
        if len(tokens) == 7:
            return np.full(7, np.nan)
        return np.array([-2.0 * len(t) for t in tokens])


@dataclass
class MakeCheckpointLaws:
    folder: Path

    def __call__(self) -> FakeLaws:
        return CheckpointLaws(self.folder, fingerprints=("c",), names=("first",))


@dataclass
class BrokenLaws:
    kind: str

    def __call__(self) -> FakeLaws:
        if self.kind == "model":
            raise ModelError("target.model 'nope': no such folder; give a hub id or a folder")
        if self.kind == "bug":
            raise KeyError("weights")
        if self.kind == "slow":
            time.sleep(1e6)
        os._exit(1)


class FakeJudge:
    """Harm where the answer has an even number of words; ``judgekill`` in the prompt ends the process."""

    def judge(self, prompt: str, responses: Sequence[str]) -> JudgedTexts:
        if "judgekill" in prompt:
            os._exit(1)
        verdicts = np.array([len(r.split()) % 2 for r in responses], dtype=np.int8)
        return JudgedTexts(verdicts, verdicts.astype(np.float64), [""] * len(responses))


def note(folder: Path, prompt_id: str) -> None:
    handle = os.open(folder / "attempts", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(handle, f"{prompt_id}\n".encode())
    os.close(handle)


def attempts(folder: Path) -> Counter[str]:
    with contextlib.suppress(FileNotFoundError):
        return Counter((folder / "attempts").read_text().split())
    return Counter()


def prompts_of(*ids: str) -> list[Prompt]:
    return [Prompt(id=i, messages=({"role": "user", "content": f"question {i}"},)) for i in ids]


def batches_of(prompts: Sequence[Prompt], each: int = 2, size: int = 5) -> list[Batch]:
    return [
        Batch(prompt_id=p.id, component=c % 2, index=c // 2, round=0, size=size, seed=derive_seed(7, p.id, c))
        for p in prompts
        for c in range(each)
    ]


def make_config(**cluster: Any) -> Config:
    cluster = {"models": {"num_cpus": 1}, "batch_timeout_s": 120.0} | cluster
    return Config.model_validate(
        {
            "target": {"model": "unused"},
            "prompts": {"path": "unused.jsonl"},
            "judge": {"kind": "refusal"},
            "cluster": cluster,
        }
    )
