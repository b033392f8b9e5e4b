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
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from tailrisk.audit.protocols import Judge, LawCard, Laws, processor_of
from tailrisk.audit.work import Held, draw_batch, draw_part, judge_texts, score
from tailrisk.cluster.group import Place
from tailrisk.cluster.parcels import pack_all, pack_draws, pack_judged
from tailrisk.config import Config, Parallel
from tailrisk.records import Batch, FloatArray, JudgedTexts, Prompt

MEETING_S = 1800.0
"""How long ranks wait for each other, in collectives too; the driver ends a group long before where one is lost."""

T = TypeVar("T")
LawsFactory = Callable[[], Laws]
JudgeFactory = Callable[[], Judge]


class Built(NamedTuple):
    """A worker that is ready: where it runs, and the laws it holds (None for a judge). ``processor``: the kind that
    computes them, '' where that does not matter."""

    worker: str
    card: LawCard | None
    processor: str = ""


def laws_of(config: Config) -> Laws:
    """The laws of ``config`` without those that are apart."""
    from tailrisk.proposals import build_laws

    here = tuple(p for p in config.proposals if p not in config.apart)
    return build_laws(config.model_copy(update={"proposals": here}))


def checkpoints_of(config: Config) -> Laws:
    from tailrisk.proposals import build_checkpoints

    return build_checkpoints(config)


def judge_of(config: Config) -> Judge:
    from tailrisk.judges import build_judge

    return build_judge(config)


def strong_judge_of(config: Config) -> Judge:
    from tailrisk.judges import build_strong_judge

    return build_strong_judge(config)


class Shard(NamedTuple):
    """Which rank of a sharded model an actor is, and whether Ray gave it a GPU."""

    parallel: Parallel
    rank: int
    gpu: bool


class _Worker:
    """``shard``: this actor is one rank of a model that is cut into several."""

    def __init__(self, prompts: Mapping[str, Prompt], threads: int, shard: Shard | None) -> None:
        self._prompts = prompts
        self._shard = shard
        # Before torch is imported, which reads them once; several workers share one machine's cores.
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            os.environ[name] = str(threads)
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        if shard is not None and not shard.gpu:
            # All ranks would take the same card, which nobody gave them.
            os.environ["CUDA_VISIBLE_DEVICES"] = ""

    def ping(self) -> Place:
        if self._shard is None or self._shard.rank != 0:
            return Place(_place(), "")
        from tailrisk.models import sharding

        return Place(_place(), sharding.meeting_place())

    def _meet(self, endpoint: str) -> None:
        """``endpoint``: where the ranks of a sharded model meet."""
        if self._shard is not None:
            from tailrisk.models import sharding

            sharding.join(self._shard.parallel, self._shard.rank, endpoint, MEETING_S)

    def _answer(self, value: T) -> T | None:
        return value if self._shard is None or self._shard.rank == 0 else None


class ModelActor(_Worker):
    def __init__(
        self, factory: LawsFactory, prompts: Mapping[str, Prompt], threads: int, shard: Shard | None = None
    ) -> None:
        super().__init__(prompts, threads, shard)
        self._factory = factory
        self._laws: Laws | None = None

    def build(self, endpoint: str) -> Built:
        self._meet(endpoint)
        self._laws = self._factory()
        return Built(_place(), LawCard.of(self._laws), processor_of(self._laws))

    def run(self, batch: Batch) -> bytes | None:
        """Draws and scores one batch (``unpack_draws``); raises ModelError where its numbers cannot be right.
        Ranks but the first keep theirs: they have drawn the same."""
        return self._answer(pack_draws(draw_batch(self._held_laws(), self._prompts[batch.prompt_id], batch)))

    def run_all(self, batches: Sequence[Batch]) -> bytes | None:
        """The same for several batches, with the seconds that they took (``unpack_all``)."""
        began = time.perf_counter()
        laws = self._held_laws()
        packed = [pack_draws(draw_batch(laws, self._prompts[b.prompt_id], b)) for b in batches]
        return self._answer(pack_all(packed, time.perf_counter() - began))

    def draw(self, batch: Batch, held: Held) -> bytes | None:
        """Draws one batch and scores it under the laws that this worker has."""
        return self._answer(
            pack_draws(draw_part(self._held_laws(), self._prompts[batch.prompt_id], batch, held))
        )

    def score(self, batch: Batch, tokens: Sequence[NDArray[np.int32]], held: Held) -> FloatArray | None:
        """[n, laws of the audit] scores of a batch that another worker has drawn, under the laws that this one has."""
        return self._answer(score(self._held_laws(), self._prompts[batch.prompt_id], tokens, batch, held))

    def _held_laws(self) -> Laws:
        assert self._laws is not None, "build() comes first"
        return self._laws


class JudgeActor(_Worker):
    def __init__(
        self, factory: JudgeFactory, prompts: Mapping[str, Prompt], threads: int, shard: Shard | None = None
    ) -> None:
        super().__init__(prompts, threads, shard)
        self._factory = factory
        self._judge: Judge | None = None

    def build(self, endpoint: str) -> Built:
        self._meet(endpoint)
        self._judge = self._factory()
        return Built(_place(), None)

    def judge(self, prompt_id: str, texts: Sequence[str]) -> JudgedTexts | None:
        """Verdicts for the answers to one prompt; a judge that raises leaves them undetermined. One rank that raises
        ends all of its worker: the others may wait for it."""
        return self._answer(self._judged(prompt_id, texts))

    def judge_all(self, answers: Sequence[tuple[str, Sequence[str]]]) -> bytes | None:
        """Verdicts for the answers to several prompts, with the seconds it took (``unpack_judged``)."""
        began = time.perf_counter()
        judged = [self._judged(prompt_id, texts) for prompt_id, texts in answers]
        return self._answer(pack_judged(judged, time.perf_counter() - began))

    def _judged(self, prompt_id: str, texts: Sequence[str]) -> JudgedTexts:
        assert self._judge is not None, "build() comes first"
        return judge_texts(self._judge, self._prompts[prompt_id], texts, caught=self._shard is None)


def _place() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"
