"""Judge workers alone on a Ray cluster: for answers that were drawn before. No model is loaded.

Implements ``tailrisk.audit.protocols.JudgeWorkers`` with the pool that an audit has for its judge: as many workers as
``cluster.judges`` says, answers of quick judges sent several batches together, workers that die replaced. Answers that
they die of are undetermined, with the reason. Needs a Ray session (``ray_session``) for as long as it is open.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from tailrisk.audit.protocols import AnswersToJudge
from tailrisk.cluster.actors import JudgeActor, JudgeFactory, judge_of
from tailrisk.cluster.group import make_group
from tailrisk.cluster.judgeline import Answers, JudgeLine
from tailrisk.cluster.nodes import NodeWatch
from tailrisk.cluster.patience import Patience
from tailrisk.cluster.pool import Pool
from tailrisk.cluster.stepping import step
from tailrisk.config import Config
from tailrisk.records import JudgedTexts, Prompt


class RayJudges:
    """The judge of ``config`` on the workers of ``config.cluster.judges``; a context manager. Making one returns when
    the first worker is ready.

    Raises:
        ClusterError: the cluster has no room for a worker, or they die while loading.
        ConfigError, JudgeError, ...: what a worker raised while it loaded, unchanged.
    """

    def __init__(
        self, config: Config, prompts: Sequence[Prompt], *, judge_factory: JudgeFactory | None = None
    ) -> None:
        import ray

        cluster, size = config.cluster, config.cluster.judges
        patience = Patience("judges", size, cluster)
        patience.require_room()
        by_id = ray.put({prompt.id: prompt for prompt in prompts})
        factory = judge_factory or functools.partial(judge_of, config)
        args = (factory, by_id, max(1, int(size.num_cpus)))
        self._pool = Pool(
            "judges",
            size,
            functools.partial(make_group, JudgeActor, size, args, config.judge.at_once),
            lambda built: None,
            timeout_s=cluster.batch_timeout_s,
            retries=cluster.retries,
            patience=patience,
            nodes=NodeWatch(),
            at_once=config.judge.at_once,
        )
        self._line: JudgeLine[AnswersToJudge] = JudgeLine(self._pool)
        try:
            while not self._pool.ready:
                step([self._pool])
        except BaseException:
            self.close()
            raise

    def judge_all(self, asked: Iterable[AnswersToJudge]) -> Iterator[tuple[AnswersToJudge, JudgedTexts]]:
        """In the order in which they are done."""
        source = iter(asked)
        more, line = True, self._line
        try:
            while True:
                while more and line.hungry:
                    some = list(itertools.islice(source, line.together))
                    more = len(some) == line.together
                    if some:
                        line.send(
                            [Answers(one, f"{one.key}/rejudge", one.prompt_id, one.texts) for one in some]
                        )
                if not (more or len(line)):
                    return
                for outcome in step([self._pool]):
                    yield from line.take(outcome) or []
        finally:
            line.forget()
            self._pool.abandon()

    def close(self) -> None:
        """Ends the workers; safe to call twice, and after the session is gone."""
        import ray

        if ray.is_initialized():
            self._pool.close()

    def __enter__(self) -> RayJudges:
        return self

    def __exit__(self, *exception: Any) -> None:
        self.close()
