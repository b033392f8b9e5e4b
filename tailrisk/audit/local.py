"""Batches run, or are judged, one after the other in this process: for tests, for debugging, for one small machine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from tailrisk.audit.protocols import AnswersToJudge, Judge, LawCard, Laws, Processor, processor_of
from tailrisk.audit.verdictcache import VerdictCache
from tailrisk.audit.work import judge_new, judge_texts, run_batch
from tailrisk.records import Batch, BatchFailure, BatchResult, JudgedTexts, Prompt

WORKER = "local"


class LocalExecutor:
    """Implements ``protocols.Executor`` with laws and a judge held by this process. ``cache``: of its verdicts."""

    def __init__(
        self,
        laws: Laws,
        judge: Judge,
        prompts: Sequence[Prompt],
        *,
        strong: Judge | None = None,
        cache: VerdictCache | None = None,
    ) -> None:
        self.laws = laws
        self.judge = judge
        self.strong = strong
        self.cache = cache
        self.card = LawCard.of(laws)
        self.processors = {WORKER: Processor("models", kind)} if (kind := processor_of(laws)) else {}
        self._prompts = {p.id: p for p in prompts}

    def run(self, batches: Iterable[Batch]) -> Iterator[BatchResult | BatchFailure]:
        for batch in batches:
            prompt = self._prompts[batch.prompt_id]
            yield run_batch(self.laws, self.judge, prompt, batch, worker=WORKER, cache=self.cache)

    def rejudge(self, prompt_id: str, texts: Sequence[str]) -> JudgedTexts:
        return judge_new(self.judge, self._prompts[prompt_id], texts, self.cache)

    def judge_strongly(
        self, answers: Sequence[tuple[str, Sequence[str]]]
    ) -> Iterator[tuple[int, JudgedTexts]]:
        assert self.strong is not None, "this executor was made without a strong judge"
        for i, (prompt_id, texts) in enumerate(answers):
            yield i, judge_texts(self.strong, self._prompts[prompt_id], texts)

    def close(self) -> None:
        """Nothing to give back: the laws belong to the caller."""


class LocalJudges:
    """Implements ``protocols.JudgeWorkers`` with a judge held by this process."""

    def __init__(self, judge: Judge, prompts: Sequence[Prompt]) -> None:
        self._judge = judge
        self._prompts = {p.id: p for p in prompts}

    def judge_all(self, asked: Iterable[AnswersToJudge]) -> Iterator[tuple[AnswersToJudge, JudgedTexts]]:
        for some in asked:
            yield some, judge_texts(self._judge, self._prompts[some.prompt_id], some.texts)
