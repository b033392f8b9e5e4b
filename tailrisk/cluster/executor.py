"""Batches on a Ray cluster: model workers draw and score, judge workers judge, the driver keeps the books.

Implements ``tailrisk.audit.protocols.Executor``. A batch that is tried again is the same batch, with the same
seed, so its numbers do not depend on which worker ran it, how often, or beside what. A batch that keeps
killing its worker, or whose code raises, comes back as a ``BatchFailure`` and the rest goes on; answers that
the judge workers die of come back undetermined, with the reason. Every wait has a time limit.

Needs a Ray session (``ray_session``) for as long as it is open.
"""

from __future__ import annotations

import functools
import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from tailrisk.audit.protocols import LawCard
from tailrisk.audit.work import Draws, join
from tailrisk.cluster import resources
from tailrisk.cluster.actors import (
    Built,
    JudgeActor,
    JudgeFactory,
    LawsFactory,
    ModelActor,
    judge_of,
    laws_of,
)
from tailrisk.cluster.parcels import Pace, unpack_draws, unpack_judged
from tailrisk.cluster.pool import Pool, wait
from tailrisk.cluster.tasks import Outcome, Task
from tailrisk.config import Config, PoolConfig
from tailrisk.errors import ClusterError
from tailrisk.records import Batch, BatchFailure, BatchResult, JudgedTexts, Prompt, Verdict

TICK_S = 0.5


class _Drawn(NamedTuple):
    """A batch that waits for its verdicts, and the worker that drew it."""

    draws: Draws
    worker: str


class RayExecutor:
    """Pools of workers as ``config.cluster`` describes them; ``card`` says what laws they hold.

    The factories build the laws and the judge inside the workers (default: as ``config`` says); they must be
    picklable. Making an executor returns when the first model worker and the first judge worker are ready.

    Raises:
        ClusterError: the cluster has no room for the workers (named resource), or they die while loading.
        ModelError, ConfigError, ...: what a worker raised while it loaded, unchanged.
    """

    card: LawCard

    def __init__(
        self,
        config: Config,
        prompts: Sequence[Prompt],
        *,
        laws_factory: LawsFactory | None = None,
        judge_factory: JudgeFactory | None = None,
    ) -> None:
        import ray

        cluster = config.cluster
        by_id = ray.put({prompt.id: prompt for prompt in prompts})
        self._card: LawCard | None = None
        self._stash: list[Outcome] = []
        self._count = itertools.count()
        patience = 0.0 if cluster.address == "local" else resources.PLACE_TIMEOUT_S
        for name, size in (("models", cluster.models), ("judges", cluster.judges)):
            resources.require_room(name, size, wait_s=patience)

        def pool(name: str, actor: Any, factory: Any, size: PoolConfig) -> Pool:
            remote = ray.remote(actor).options(
                num_cpus=size.num_cpus, num_gpus=size.num_gpus, max_restarts=0, max_task_retries=0
            )
            make = functools.partial(remote.remote, factory, by_id, max(1, int(size.num_cpus)))
            return Pool(
                name, size, make, self._built, timeout_s=cluster.batch_timeout_s, retries=cluster.retries
            )

        laws = laws_factory or functools.partial(laws_of, config)
        judge = judge_factory or functools.partial(judge_of, config)
        self._models = pool("models", ModelActor, laws, cluster.models)
        self._judges = pool("judges", JudgeActor, judge, cluster.judges)
        self._pools = [self._models, self._judges]
        self._most_judges = cluster.judges.max
        self._pace = Pace()
        try:
            while not all(p.ready for p in self._pools) or self._card is None:
                self._step()
        except BaseException:
            self.close()
            raise
        self.card = self._card

    def run(self, batches: Iterable[Batch]) -> Iterator[BatchResult | BatchFailure]:
        """One outcome a batch, in the order in which they are done; batches are taken as there is room."""
        source = iter(batches)
        drawing: dict[Task, Batch] = {}
        drawn: deque[_Drawn] = deque()
        judging: dict[Task, list[_Drawn]] = {}
        more = True
        try:
            while True:
                while (
                    more and self._models.hungry and len(drawn) < 4 * self._most_judges * self._pace.together
                ):
                    batch = next(source, None)
                    if batch is None:
                        more = False
                        break
                    task = Task(batch.key, "run", (batch,))
                    drawing[task] = batch
                    self._models.submit(task)
                while drawn and self._judges_wait(len(judging)):
                    self._judge(drawn, self._pace.together, judging)
                if not (more or drawing or drawn or judging):
                    return
                for outcome in self._step():
                    task = outcome.task
                    if task in drawing:
                        batch = drawing.pop(task)
                        if outcome.reason:
                            yield BatchFailure(batch=batch, reason=outcome.reason)
                        else:
                            drawn.append(_Drawn(unpack_draws(outcome.value, batch), outcome.worker))
                    elif task in judging:
                        yield from self._joined(judging.pop(task), outcome, judging)
        finally:
            self._stash.clear()
            for p in self._pools:
                p.abandon()

    def _judges_wait(self, calls: int) -> bool:
        """Whether another call would be of use. Of quick calls one for each worker is enough: what is drawn
        meanwhile goes together."""
        return calls < self._most_judges if self._pace.together > 1 else self._judges.hungry

    def _judge(self, drawn: deque[_Drawn], together: int, judging: dict[Task, list[_Drawn]]) -> None:
        """Sends the first ``together`` of ``drawn`` to a judge worker, in one call."""
        some = [drawn.popleft() for _ in range(min(together, len(drawn)))]
        answers = [(d.draws.batch.prompt_id, d.draws.texts) for d in some]
        task = Task(some[0].draws.batch.key, "judge_all", (answers,))
        judging[task] = some
        self._judges.submit(task)

    def _joined(
        self, some: list[_Drawn], outcome: Outcome, judging: dict[Task, list[_Drawn]]
    ) -> Iterator[BatchResult]:
        """Finished batches; where the judge workers died of several together, each is tried by itself."""
        if not outcome.reason:
            judged, seconds = unpack_judged(outcome.value)
            self._pace.saw(len(some), seconds)
        else:
            self._pace.failed()
            if len(some) > 1:
                alone = deque(some)
                while alone:
                    self._judge(alone, 1, judging)
                return
            judged = [_undetermined(outcome.reason, len(some[0].draws.texts))]
        for (draws, worker), verdicts in zip(some, judged, strict=True):
            yield join(draws, verdicts, worker=worker)

    def rejudge(self, prompt_id: str, texts: Sequence[str]) -> JudgedTexts:
        """Verdicts for answers drawn earlier; undetermined, with the reason, where the judge workers die."""
        task = Task(f"{prompt_id}/rejudge/{next(self._count)}", "judge", (prompt_id, list(texts)))
        self._judges.submit(task)
        mine: Outcome | None = None
        others: list[Outcome] = []
        while mine is None:
            for outcome in self._step():
                if outcome.task is task:
                    mine = outcome
                else:
                    others.append(outcome)
        self._stash += others
        return _undetermined(mine.reason, len(texts)) if mine.reason else mine.value

    def close(self) -> None:
        """Ends the workers; safe to call twice, and after the session is gone."""
        import ray

        if ray.is_initialized():
            for pool in self._pools:
                pool.close()

    def __enter__(self) -> RayExecutor:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _built(self, built: Built) -> None:
        """Workers with other laws (another version of a file on another node) must not share an audit."""
        if built.card is None:
            return
        if self._card is not None and built.card != self._card:
            raise ClusterError(
                f"cluster.models: the worker on {built.worker} holds other laws than the first one "
                f"({_difference(self._card, built.card)}); every node must see the same model files"
            )
        self._card = built.card

    def _step(self) -> list[Outcome]:
        """Wait for something to happen, and say what it was."""
        from ray.exceptions import RayError

        outcomes, self._stash = self._stash, []
        try:
            for pool in self._pools:
                outcomes += pool.tend()
            done = wait(self._pools, 0.0 if outcomes else TICK_S)
            for pool in self._pools:
                outcomes += pool.handle(done)
        except (RayError, ConnectionError) as error:
            raise ClusterError(
                f"the connection to Ray was lost ({type(error).__name__}); "
                "what is in the log is safe: run the same command again to resume"
            ) from error
        return outcomes


def _undetermined(reason: str, n: int) -> JudgedTexts:
    return JudgedTexts(
        np.full(n, Verdict.UNDETERMINED, dtype=np.int8), np.full(n, np.nan), [f"judging {reason}"] * n
    )


def _difference(first: LawCard, second: LawCard) -> str:
    if first.names != second.names:
        return f"{', '.join(first.names)} against {', '.join(second.names)}"
    differ = [
        name
        for name, a, b in zip(first.names, first.fingerprints, second.fingerprints, strict=True)
        if a != b
    ]
    return ", ".join(differ) or "another precision"
