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
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from tailrisk.audit.protocols import ClusterStatus, LawCard
from tailrisk.audit.work import check_draws, join
from tailrisk.cluster.actors import (
    Built,
    JudgeActor,
    JudgeFactory,
    LawsFactory,
    ModelActor,
    checkpoints_of,
    judge_of,
    laws_of,
    strong_judge_of,
)
from tailrisk.cluster.group import make_group
from tailrisk.cluster.nodes import NodeWatch
from tailrisk.cluster.parcels import Pace, unpack_draws, unpack_judged
from tailrisk.cluster.parts import CHECKPOINTS, MODELS, Course, Parts
from tailrisk.cluster.patience import Patience
from tailrisk.cluster.pool import Pool, wait
from tailrisk.cluster.sight import Sight
from tailrisk.cluster.tasks import Outcome, Task
from tailrisk.config import Config, PoolConfig
from tailrisk.errors import ClusterError, ModelError
from tailrisk.records import Batch, BatchFailure, BatchResult, JudgedTexts, Prompt, Verdict

TICK_S = 0.5
STRONG = "strong_judges"


class RayExecutor:
    """Pools of workers as ``config.cluster`` describes them; ``card`` says what laws they hold.

    The factories build the laws and the judge inside the workers (default: as ``config`` says); they must be
    picklable. Making an executor returns when the first model worker and the first judge worker are ready.

    Raises:
        ClusterError: the cluster has no room for the workers (named resource) and gets none in the time that
            ``cluster.wait_for_nodes_s`` gives, or they die while loading.
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
        strong_judge_factory: JudgeFactory | None = None,
    ) -> None:
        import ray

        cluster = config.cluster
        by_id = ray.put({prompt.id: prompt for prompt in prompts})
        self._parts = Parts(config)
        self._stash: list[Outcome] = []
        self._count = itertools.count()
        nodes = NodeWatch()

        def pool(name: str, actor: type, factory: Any, size: PoolConfig) -> Pool:
            patience = Patience(name, size, cluster)
            patience.require_room()
            make = functools.partial(make_group, actor, size, (factory, by_id, max(1, int(size.num_cpus))))
            return Pool(
                name,
                size,
                make,
                functools.partial(self._built, name),
                timeout_s=cluster.batch_timeout_s,
                retries=cluster.retries,
                patience=patience,
                nodes=nodes,
                # A prompt with a failed batch has failed; an answer that ends the judge says nothing of others.
                by_subject=actor is ModelActor,
            )

        factories = {
            MODELS: laws_factory or functools.partial(laws_of, config),
            CHECKPOINTS: checkpoints_factory or functools.partial(checkpoints_of, config),
        }
        judge = judge_factory or functools.partial(judge_of, config)
        self._holders = {
            name: pool(name, ModelActor, factories[name], cluster.pools[name]) for name in self._parts.held
        }
        self._judges = pool("judges", JudgeActor, judge, cluster.judges)
        self._strong: Pool | None = None
        if config.strong_judge is not None:
            strong = strong_judge_factory or functools.partial(strong_judge_of, config)
            self._strong = pool(STRONG, JudgeActor, strong, cluster.strong_judges or cluster.judges)
        self._pools = [*self._holders.values(), self._judges, *([self._strong] if self._strong else [])]
        self._sight = Sight(self._pools)
        self._most_judges = cluster.judges.max
        self._pace = Pace()
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
        drawn: deque[Course] = deque()
        judging: dict[Task, list[Course]] = {}
        more = True
        try:
            while True:
                while more and self._hungry(len(drawn)):
                    batch = next(source, None)
                    if batch is None:
                        more = False
                        break
                    self._draw(Course(batch), on_way)
                while drawn and self._judges_wait(len(judging)):
                    self._judge(drawn, self._pace.together, judging)
                if not (more or on_way or drawn or judging):
                    return
                for outcome in self._step():
                    if (some := judging.pop(outcome.task, None)) is not None:
                        yield from self._joined(some, outcome, judging)
                        continue
                    course = on_way.pop(outcome.task, None)
                    if course is None or course.over:
                        continue
                    if (failure := self._go_on(course, outcome, on_way)) is not None:
                        course.over = True
                        yield failure
                    elif not course.waiting:
                        drawn.append(course)
        finally:
            self._stash.clear()
            for p in self._pools:
                p.abandon()

    def _hungry(self, drawn: int) -> bool:
        """Whether another batch would be of use: to the workers that draw, and to the judges after them."""
        waiting = 4 * self._most_judges * self._pace.together
        return drawn < waiting and all(p.hungry for p in self._holders.values())

    def _draw(self, course: Course, on_way: dict[Task, Course]) -> None:
        batch, name = course.batch, self._parts.drawn_by(course.batch)
        if self._parts.whole:
            task = Task(batch.key, "run", (batch,), batch.prompt_id)
        else:
            task = Task(batch.key, "draw", (batch, self._parts.held[name]), batch.prompt_id)
        on_way[task] = course
        self._holders[name].submit(task)

    def _go_on(self, course: Course, outcome: Outcome, on_way: dict[Task, Course]) -> BatchFailure | None:
        """The next step of a batch after it was drawn, or scored somewhere else."""
        batch = course.batch
        if outcome.reason:
            return BatchFailure(batch=batch, reason=outcome.reason)
        if outcome.task.method == "score":
            course.scored(outcome.task.args[-1], outcome.value)
        else:
            course.draws, course.worker = unpack_draws(outcome.value, batch), outcome.worker
            for name in self._parts.scored_by(batch):
                held = self._parts.held[name]
                course.waiting.add(held)
                key, args = f"{batch.key}/{name}", (batch, course.drawn.tokens, held)
                task = Task(key, "score", args, batch.prompt_id)
                on_way[task] = course
                self._holders[name].submit(task)
        if not (course.waiting or self._parts.whole):
            try:
                check_draws(course.drawn, self.card.names)
            except ModelError as error:
                return BatchFailure(batch=batch, reason=str(error))
        return None

    def _judges_wait(self, calls: int) -> bool:
        """Whether another call would be of use. Of quick calls one for each worker is enough: what is drawn
        meanwhile goes together."""
        return calls < self._most_judges if self._pace.together > 1 else self._judges.hungry

    def _judge(self, drawn: deque[Course], together: int, judging: dict[Task, list[Course]]) -> None:
        """Sends the first ``together`` of ``drawn`` to a judge worker, in one call."""
        some = [drawn.popleft() for _ in range(min(together, len(drawn)))]
        answers = [(course.batch.prompt_id, course.drawn.texts) for course in some]
        first = some[0].batch
        task = Task(first.key, "judge_all", (answers,), first.prompt_id)
        judging[task] = some
        self._judges.submit(task)

    def _joined(
        self, some: list[Course], outcome: Outcome, judging: dict[Task, list[Course]]
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
            judged = [_undetermined(outcome.reason, len(some[0].drawn.texts))]
        for course, verdicts in zip(some, judged, strict=True):
            yield join(course.drawn, verdicts, worker=course.worker)

    def judge_strongly(
        self, answers: Sequence[tuple[str, Sequence[str]]]
    ) -> Iterator[tuple[int, JudgedTexts]]:
        """The strong judge's verdicts, as its workers have them; undetermined, with the reason, where these die."""
        assert self._strong is not None, "strong_judge is not configured"
        on_way: dict[Task, int] = {}
        waiting = deque(enumerate(answers))
        try:
            while waiting or on_way:
                while waiting and self._strong.hungry:
                    i, (prompt_id, texts) = waiting.popleft()
                    key = f"{prompt_id}/strong/{next(self._count)}"
                    task = Task(key, "judge", (prompt_id, list(texts)), prompt_id)
                    on_way[task] = i
                    self._strong.submit(task)
                for outcome in self._step():
                    if (i := on_way.pop(outcome.task, None)) is not None:
                        n = len(answers[i][1])
                        yield i, _undetermined(outcome.reason, n) if outcome.reason else outcome.value
        finally:
            self._strong.abandon()

    def rejudge(self, prompt_id: str, texts: Sequence[str]) -> JudgedTexts:
        """Verdicts for answers drawn earlier; undetermined, with the reason, where the judge workers die."""
        key = f"{prompt_id}/rejudge/{next(self._count)}"
        task = Task(key, "judge", (prompt_id, list(texts)), prompt_id)
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


def _undetermined(reason: str, n: int) -> JudgedTexts:
    return JudgedTexts(
        np.full(n, Verdict.UNDETERMINED, dtype=np.int8), np.full(n, np.nan), [f"judging {reason}"] * n
    )
