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
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from tailrisk.audit.protocols import ClusterStatus, LawCard
from tailrisk.audit.work import check_draws, join
from tailrisk.cluster import resources
from tailrisk.cluster.actors import (
    Built,
    JudgeActor,
    JudgeFactory,
    LawsFactory,
    ModelActor,
    checkpoints_of,
    judge_of,
    laws_of,
)
from tailrisk.cluster.group import make_group
from tailrisk.cluster.parts import CHECKPOINTS, MODELS, Course, Parts
from tailrisk.cluster.pool import Pool, wait
from tailrisk.cluster.sight import Sight
from tailrisk.cluster.tasks import Outcome, Task
from tailrisk.config import Config, PoolConfig
from tailrisk.errors import ClusterError, ModelError
from tailrisk.records import Batch, BatchFailure, BatchResult, JudgedTexts, Prompt, Verdict

TICK_S = 0.5


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
        checkpoints_factory: LawsFactory | None = None,
        judge_factory: JudgeFactory | None = None,
    ) -> None:
        import ray

        cluster = config.cluster
        by_id = ray.put({prompt.id: prompt for prompt in prompts})
        self._parts = Parts(config)
        self._stash: list[Outcome] = []
        self._count = itertools.count()
        patience = 0.0 if cluster.address == "local" else resources.PLACE_TIMEOUT_S
        for name, size in cluster.pools.items():
            resources.require_room(name, size, wait_s=patience)

        def pool(name: str, actor: type, factory: Any, size: PoolConfig) -> Pool:
            make = functools.partial(make_group, actor, size, (factory, by_id, max(1, int(size.num_cpus))))
            built = functools.partial(self._built, name)
            return Pool(name, size, make, built, timeout_s=cluster.batch_timeout_s, retries=cluster.retries)

        factories = {
            MODELS: laws_factory or functools.partial(laws_of, config),
            CHECKPOINTS: checkpoints_factory or functools.partial(checkpoints_of, config),
        }
        judge = judge_factory or functools.partial(judge_of, config)
        self._holders = {
            name: pool(name, ModelActor, factories[name], cluster.pools[name]) for name in self._parts.held
        }
        self._judges = pool("judges", JudgeActor, judge, cluster.judges)
        self._pools = [*self._holders.values(), self._judges]
        self._sight = Sight(self._pools)
        self._judges_limit = 4 * cluster.judges.max
        try:
            while not all(p.ready for p in self._pools) or (card := self._parts.card) is None:
                self._step()
        except BaseException:
            self.close()
            raise
        self.card = card

    def run(self, batches: Iterable[Batch]) -> Iterator[BatchResult | BatchFailure]:
        """One outcome a batch, in the order in which they are done; batches are taken as there is room."""
        source = iter(batches)
        on_way: dict[Task, Course] = {}
        more = True
        try:
            while True:
                while more and self._hungry():
                    batch = next(source, None)
                    if batch is None:
                        more = False
                        break
                    self._draw(Course(batch), on_way)
                if not (more or on_way):
                    return
                for outcome in self._step():
                    course = on_way.pop(outcome.task, None)
                    if course is None or course.over:
                        continue
                    if (result := self._go_on(course, outcome, on_way)) is not None:
                        course.over = True
                        yield result
        finally:
            self._stash.clear()
            for p in self._pools:
                p.abandon()

    def _hungry(self) -> bool:
        return all(p.hungry for p in self._holders.values()) and self._judges.backlog < self._judges_limit

    def _draw(self, course: Course, on_way: dict[Task, Course]) -> None:
        batch, name = course.batch, self._parts.drawn_by(course.batch)
        if self._parts.whole:
            task = Task(batch.key, "run", (batch,))
        else:
            task = Task(batch.key, "draw", (batch, self._parts.held[name]))
        on_way[task] = course
        self._holders[name].submit(task)

    def _go_on(
        self, course: Course, outcome: Outcome, on_way: dict[Task, Course]
    ) -> BatchResult | BatchFailure | None:
        """The next step of a batch after one is done; None, or the result of the last."""
        batch, method = course.batch, outcome.task.method
        if method == "judge":
            draws = course.drawn
            return join(draws, _judged(outcome, len(draws.texts)), worker=course.worker)
        if outcome.reason:
            return BatchFailure(batch=batch, reason=outcome.reason)
        if method == "score":
            course.scored(outcome.task.args[-1], outcome.value)
        else:
            course.draws, course.worker = outcome.value, outcome.worker
            for name in self._parts.scored_by(batch):
                held = self._parts.held[name]
                course.waiting.add(held)
                task = Task(f"{batch.key}/{name}", "score", (batch, course.drawn.tokens, held))
                on_way[task] = course
                self._holders[name].submit(task)
        if course.waiting:
            return None
        if not self._parts.whole:
            try:
                check_draws(course.drawn, self.card.names)
            except ModelError as error:
                return BatchFailure(batch=batch, reason=str(error))
        task = Task(batch.key, "judge", (batch.prompt_id, course.drawn.texts))
        on_way[task] = course
        self._judges.submit(task)
        return None

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
        return _judged(mine, len(texts))

    def status(self) -> ClusterStatus:
        """Nodes and workers as they are now."""
        return self._sight.status()

    def watch(self, watcher: Callable[[ClusterStatus], None]) -> None:
        """Tell ``watcher`` of the cluster while batches run (``protocols.Watched``)."""
        self._sight.watch(watcher)

    def close(self) -> None:
        """Ends the workers; safe to call twice, and after the session is gone."""
        import ray

        self._sight.close()
        if ray.is_initialized():
            for pool in self._pools:
                pool.close()

    def __enter__(self) -> RayExecutor:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _built(self, pool: str, built: Built) -> None:
        """Workers with other laws (another version of a file on another node) must not share an audit."""
        if built.card is not None:
            self._parts.built(pool, built.card, built.worker)

    def _step(self) -> list[Outcome]:
        """Wait for something to happen, and say what it was."""
        from ray.exceptions import RayError

        self._sight.look()
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


def _judged(outcome: Outcome, n: int) -> JudgedTexts:
    if not outcome.reason:
        return outcome.value
    return JudgedTexts(
        np.full(n, Verdict.UNDETERMINED, dtype=np.int8), np.full(n, np.nan), [f"judging {outcome.reason}"] * n
    )
