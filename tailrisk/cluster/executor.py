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

from tailrisk.audit.protocols import ClusterStatus, LawCard, Processor
from tailrisk.audit.verdictcache import cache_of
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
from tailrisk.cluster.beside import Beside
from tailrisk.cluster.group import make_group
from tailrisk.cluster.judgeline import Answers, JudgeLine
from tailrisk.cluster.nodes import NodeWatch
from tailrisk.cluster.parcels import Pace, unpack_all, unpack_draws
from tailrisk.cluster.parts import CHECKPOINTS, MODELS, Course, Parts
from tailrisk.cluster.patience import Patience
from tailrisk.cluster.pool import Pool
from tailrisk.cluster.sight import Sight
from tailrisk.cluster.stepping import TICK_S, step
from tailrisk.cluster.tasks import Outcome, Task
from tailrisk.config import Config, PoolConfig
from tailrisk.errors import ModelError
from tailrisk.records import Batch, BatchFailure, BatchResult, JudgedTexts, Prompt

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
        self.processors: dict[str, Processor] = {}
        self._stash: list[Outcome] = []
        self._count = itertools.count()
        nodes = NodeWatch()

        def pool(name: str, actor: type, factory: Any, size: PoolConfig, at_once: int = 1) -> Pool:
            patience = Patience(name, size, cluster)
            patience.require_room()
            args = (factory, by_id, max(1, int(size.num_cpus)))
            make = functools.partial(make_group, actor, size, args, at_once)
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
                at_once=at_once,
            )

        factories = {
            MODELS: laws_factory or functools.partial(laws_of, config),
            CHECKPOINTS: checkpoints_factory or functools.partial(checkpoints_of, config),
        }
        judge = judge_factory or functools.partial(judge_of, config)
        self.cache = cache_of(config)
        self._asked_of = {prompt.id: prompt.text for prompt in prompts} if self.cache is not None else {}
        self._holders = {
            name: pool(name, ModelActor, factories[name], cluster.pools[name]) for name in self._parts.held
        }
        self._judges = pool("judges", JudgeActor, judge, cluster.judges, config.judge.at_once)
        self._strong: Pool | None = None
        if config.strong_judge is not None:
            strong = strong_judge_factory or functools.partial(strong_judge_of, config)
            size = cluster.strong_judges or cluster.judges
            self._strong = pool(STRONG, JudgeActor, strong, size, config.strong_judge.judge.at_once)
        self._pools = [*self._holders.values(), self._judges, *([self._strong] if self._strong else [])]
        self._sight = Sight(self._pools)
        self._judging: JudgeLine[Course] = JudgeLine(self._judges)
        self._drawing_pace = Pace()
        self.beside = Beside()
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
        on_way: dict[Task, list[Course]] = {}
        drawn: deque[Course] = deque()
        more = True
        try:
            while True:
                while more and self._hungry(len(drawn)):
                    some = [Course(b) for b in itertools.islice(source, self._drawing_pace.together)]
                    if some:
                        self._draw(some, on_way)
                    more = len(some) == self._drawing_pace.together
                while drawn and self._judging.hungry:
                    yield from self._judge(drawn)
                if not (more or on_way or drawn or len(self._judging)):
                    return
                for outcome in self._step():
                    if (judged := self._judging.take(outcome)) is not None:
                        yield from self._judged(judged)
                        continue
                    courses = [c for c in on_way.pop(outcome.task, []) if not c.over]
                    if outcome.task.batches > 1:
                        drawn += self._drawn_together(courses, outcome, on_way)
                        continue
                    for course in courses:
                        if (failure := self._go_on(course, outcome, on_way)) is not None:
                            course.over = True
                            yield failure
                        elif not course.waiting:
                            drawn.append(course)
        finally:
            self._stash.clear()
            self._judging.forget()
            for p in self._pools:
                p.abandon()

    def _hungry(self, drawn: int) -> bool:
        """Whether another batch would be of use: to the workers that draw, and to the judges after them."""
        return drawn < 4 * self._judges.most * self._judging.together and all(
            p.hungry for p in self._holders.values()
        )

    def _draw(self, courses: list[Course], on_way: dict[Task, list[Course]]) -> None:
        """Sends batches to a worker in one call: several only where one kind of worker has all laws."""
        batch, name = courses[0].batch, self._parts.drawn_by(courses[0].batch)
        if len(courses) > 1:
            task = Task(batch.key, "run_all", ([c.batch for c in courses],), batches=len(courses))
        elif self._parts.whole:
            task = Task(batch.key, "run", (batch,), batch.prompt_id)
        else:
            task = Task(batch.key, "draw", (batch, self._parts.held[name]), batch.prompt_id)
        on_way[task] = courses
        self._holders[name].submit(task)

    def _drawn_together(
        self, courses: list[Course], outcome: Outcome, on_way: dict[Task, list[Course]]
    ) -> list[Course]:
        """Those that are drawn; where the call failed, each is tried by itself, to find the one that is at fault."""
        if outcome.reason:
            self._drawing_pace.failed()
            for course in courses:
                self._draw([course], on_way)
            return []
        draws, seconds = unpack_all(outcome.value, [c.batch for c in courses])
        self._drawing_pace.saw(len(courses), seconds)
        for course, drawn in zip(courses, draws, strict=True):
            course.draws, course.worker = drawn, outcome.worker
        return courses

    def _go_on(
        self, course: Course, outcome: Outcome, on_way: dict[Task, list[Course]]
    ) -> BatchFailure | None:
        """The next step of a batch after it was drawn, or scored somewhere else."""
        batch = course.batch
        if outcome.reason:
            return BatchFailure(batch=batch, reason=outcome.reason)
        if outcome.task.method == "score":
            course.scored(outcome.task.args[-1], outcome.value)
        else:
            course.draws, course.worker = unpack_draws(outcome.value, batch), outcome.worker
            if self._parts.whole:
                self._drawing_pace.saw(1, course.draws.seconds)
            for name in self._parts.scored_by(batch):
                held = self._parts.held[name]
                course.waiting.add(held)
                key, args = f"{batch.key}/{name}", (batch, course.drawn.tokens, held)
                task = Task(key, "score", args, batch.prompt_id)
                on_way[task] = [course]
                self._holders[name].submit(task)
        if not (course.waiting or self._parts.whole):
            try:
                check_draws(course.drawn, self.card.names)
            except ModelError as error:
                return BatchFailure(batch=batch, reason=str(error))
        return None

    def _judge(self, drawn: deque[Course]) -> Iterator[BatchResult]:
        """Sends the first of ``drawn`` to a judge worker. Those of which all verdicts are known are finished."""
        some: list[Answers[Course]] = []
        while drawn and len(some) < self._judging.together:
            course = drawn.popleft()
            if self.cache is not None:
                course.asked = self.cache.look_up(self._asked_of[course.batch.prompt_id], course.drawn.texts)
                if not course.asked.texts:
                    yield join(course.drawn, self.cache.settle(course.asked), worker=course.worker)
                    continue
            some.append(Answers(course, course.batch.key, course.batch.prompt_id, course.to_judge))
        if some:
            self._judging.send(some)

    def _judged(self, judged: list[tuple[Course, JudgedTexts]]) -> Iterator[BatchResult]:
        for course, verdicts in judged:
            if self.cache is not None and course.asked is not None:
                verdicts = self.cache.settle(course.asked, verdicts)
            yield join(course.drawn, verdicts, worker=course.worker)

    def judge_strongly(
        self, answers: Sequence[tuple[str, Sequence[str]]]
    ) -> Iterator[tuple[int, JudgedTexts]]:
        """The strong judge's verdicts, as its workers have them; undetermined, with the reason, where these die."""
        assert self._strong is not None, "strong_judge is not configured"
        line: JudgeLine[int] = JudgeLine(self._strong)
        waiting = deque(enumerate(answers))
        try:
            while waiting or len(line):
                while waiting and line.hungry:
                    some = [waiting.popleft() for _ in range(min(line.together, len(waiting)))]
                    line.send(
                        [Answers(i, f"{prompt}/strong/{i}", prompt, texts) for i, (prompt, texts) in some]
                    )
                for outcome in self._step():
                    yield from line.take(outcome) or []
        finally:
            self._strong.abandon()

    def rejudge(self, prompt_id: str, texts: Sequence[str]) -> JudgedTexts:
        """Verdicts for answers drawn earlier; undetermined, with the reason, where the judge workers die."""
        if self.cache is None:
            return self._judged_now(prompt_id, texts)
        asked = self.cache.look_up(self._asked_of[prompt_id], texts)
        return self.cache.settle(asked, self._judged_now(prompt_id, asked.texts) if asked.texts else None)

    def _judged_now(self, prompt_id: str, texts: Sequence[str]) -> JudgedTexts:
        line: JudgeLine[None] = JudgeLine(self._judges)
        line.send([Answers(None, f"{prompt_id}/rejudge/{next(self._count)}", prompt_id, texts)])
        others: list[Outcome] = []
        while True:
            mine: list[tuple[None, JudgedTexts]] = []
            for outcome in self._step():
                if (judged := line.take(outcome)) is None:
                    others.append(outcome)
                mine += judged or []
            if mine:
                self._stash += others
                return mine[0][1]

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
            self.beside.close()

    def __enter__(self) -> RayExecutor:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _built(self, pool: str, built: Built) -> None:
        """Workers with other laws (another version of a file on another node) must not share an audit."""
        if built.card is not None:
            self._parts.built(pool, built.card, built.worker)
            if built.processor:
                self.processors[built.worker] = Processor(pool, built.processor)

    def _step(self) -> list[Outcome]:
        """Wait for something to happen, and say what it was."""
        self._sight.look()
        outcomes, self._stash = self._stash, []
        return outcomes + step(self._pools, wait_s=0.0 if outcomes else TICK_S)
