"""The workers: a model actor draws and scores batches, a judge actor judges answers.

Both are thin: what they do with a batch is ``tailrisk.audit.work``, the same as in one process. They are
made in two steps so that the driver can tell a worker that waits for room in the cluster (``ping`` does not
answer) from one that loads its model (``build`` does not answer), and so that what goes wrong while loading
comes back as the error itself. They log nothing: prompts and answers travel only to the driver.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from tailrisk.audit.protocols import Judge, LawCard, Laws
from tailrisk.audit.work import draw_batch, judge_texts
from tailrisk.cluster.parcels import pack_draws, pack_judged
from tailrisk.config import Config
from tailrisk.records import Batch, JudgedTexts, Prompt

LawsFactory = Callable[[], Laws]
JudgeFactory = Callable[[], Judge]


class Built(NamedTuple):
    """A worker that is ready: where it runs, and the laws it holds (None for a judge)."""

    worker: str
    card: LawCard | None


def laws_of(config: Config) -> Laws:
    from tailrisk.proposals import build_laws

    return build_laws(config)


def judge_of(config: Config) -> Judge:
    from tailrisk.judges import build_judge

    return build_judge(config)


class _Worker:
    def __init__(self, prompts: Mapping[str, Prompt], threads: int) -> None:
        self._prompts = prompts
        # Before torch is imported, which reads them once; several workers share one machine's cores.
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            os.environ[name] = str(threads)
        os.environ["TOKENIZERS_PARALLELISM"] = "false"

    def ping(self) -> str:
        return _place()


class ModelActor(_Worker):
    def __init__(self, factory: LawsFactory, prompts: Mapping[str, Prompt], threads: int) -> None:
        super().__init__(prompts, threads)
        self._factory = factory
        self._laws: Laws | None = None

    def build(self) -> Built:
        self._laws = self._factory()
        return Built(_place(), LawCard.of(self._laws))

    def run(self, batch: Batch) -> bytes:
        """Draws and scores one batch (``unpack_draws``); raises ModelError where its numbers cannot be right."""
        assert self._laws is not None, "build() comes first"
        return pack_draws(draw_batch(self._laws, self._prompts[batch.prompt_id], batch))


class JudgeActor(_Worker):
    def __init__(self, factory: JudgeFactory, prompts: Mapping[str, Prompt], threads: int) -> None:
        super().__init__(prompts, threads)
        self._factory = factory
        self._judge: Judge | None = None

    def build(self) -> Built:
        self._judge = self._factory()
        return Built(_place(), None)

    def judge(self, prompt_id: str, texts: Sequence[str]) -> JudgedTexts:
        """Verdicts for the answers to one prompt; a judge that raises leaves them undetermined."""
        assert self._judge is not None, "build() comes first"
        return judge_texts(self._judge, self._prompts[prompt_id], texts)

    def judge_all(self, answers: Sequence[tuple[str, Sequence[str]]]) -> bytes:
        """Verdicts for the answers to several prompts, with the seconds it took (``unpack_judged``)."""
        began = time.perf_counter()
        judged = [self.judge(prompt_id, texts) for prompt_id, texts in answers]
        return pack_judged(judged, time.perf_counter() - began)


def _place() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"
