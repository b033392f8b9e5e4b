"""Batches run one after the other in this process: for tests, for debugging, for one small machine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from tailrisk.audit.protocols import Judge, LawCard, Laws
from tailrisk.audit.work import judge_texts, run_batch
from tailrisk.records import Batch, BatchFailure, BatchResult, JudgedTexts, Prompt


class LocalExecutor:
    """Implements ``protocols.Executor`` with laws and a judge held by this process."""

    def __init__(
        self, laws: Laws, judge: Judge, prompts: Sequence[Prompt], *, strong: Judge | None = None
    ) -> None:
        self.laws = laws
        self.judge = judge
        self.strong = strong
        self.card = LawCard.of(laws)
        self._prompts = {p.id: p for p in prompts}

    def run(self, batches: Iterable[Batch]) -> Iterator[BatchResult | BatchFailure]:
        for batch in batches:
            yield run_batch(self.laws, self.judge, self._prompts[batch.prompt_id], batch, worker="local")

    def rejudge(self, prompt_id: str, texts: Sequence[str]) -> JudgedTexts:
        return judge_texts(self.judge, self._prompts[prompt_id], texts)

    def judge_strongly(
        self, answers: Sequence[tuple[str, Sequence[str]]]
    ) -> Iterator[tuple[int, JudgedTexts]]:
        assert self.strong is not None, "this executor was made without a strong judge"
        for i, (prompt_id, texts) in enumerate(answers):
            yield i, judge_texts(self.strong, self._prompts[prompt_id], texts)

    def close(self) -> None:
        """Nothing to give back: the laws belong to the caller."""
