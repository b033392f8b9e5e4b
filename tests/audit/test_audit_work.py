"""One batch: what may enter the log and what may not."""

from __future__ import annotations

import numpy as np
import pytest
from truth.tablelaws import TableLaws, WordJudge, toy_prompts

from tailrisk.audit.work import draw_batch, judge_texts, run_batch
from tailrisk.errors import ModelError
from tailrisk.records import Batch, BatchFailure, BatchResult, JudgedTexts, Verdict

(PROMPT,) = toy_prompts([0.1])
BATCH = Batch(prompt_id=PROMPT.id, component=1, index=0, round=0, size=9, seed=3)


class Spoiled(TableLaws):
    """Changes one number of what the laws say."""

    def __init__(self, spoil) -> None:
        super().__init__()
        self.spoil = spoil

    def log_prob(self, prompt, tokens, components=None):
        log_q = super().log_prob(prompt, tokens, components)
        return self.spoil(log_q) if self.calls else log_q

    def sample(self, prompt, component, n, seed):
        samples = TableLaws().sample(prompt, component, n, seed)
        self.calls += 1
        return samples


def put(value: float, column: int):
    def spoil(log_q):
        log_q[4, column] = value
        return log_q

    return spoil


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (put(np.nan, 0), "draw 4.*nan.*'target'"),
        (put(np.inf, 2), "draw 4.*inf.*'mild'"),
        (put(-np.inf, 1), "draw 4 is impossible"),
        (lambda log_q: log_q[:-1], r"scores of 9 draws .* shape \(8, 5\)"),
        (lambda log_q: log_q[:, :2], r"shape \(9, 2\)"),
    ],
)
def test_numbers_that_cannot_be_right_fail_the_batch(spoil, said):
    laws = Spoiled(spoil)
    with pytest.raises(ModelError, match=said):
        draw_batch(laws, PROMPT, BATCH)
    failure = run_batch(laws, WordJudge(), PROMPT, BATCH)
    assert isinstance(failure, BatchFailure)
    assert BATCH.key in failure.reason


def test_a_proposal_may_call_a_draw_impossible():
    result = run_batch(Spoiled(put(-np.inf, 3)), WordJudge(), PROMPT, BATCH)
    assert isinstance(result, BatchResult)
    assert result.log_q[4, 3] == -np.inf


@pytest.mark.parametrize("value", [np.nan, -np.inf, np.inf])
def test_the_sampling_pass_must_be_finite(value):
    class Bad(TableLaws):
        def sample(self, prompt, component, n, seed):
            samples = super().sample(prompt, component, n, seed)
            samples.log_q[2] = value
            return samples

    with pytest.raises(ModelError, match="draw 2"):
        draw_batch(Bad(), PROMPT, BATCH)


def test_an_empty_response_is_refused():
    class Bad(TableLaws):
        def sample(self, prompt, component, n, seed):
            samples = super().sample(prompt, component, n, seed)
            samples.tokens[0] = samples.tokens[0][:0]
            return samples

    with pytest.raises(ModelError, match="without a single token"):
        draw_batch(Bad(), PROMPT, BATCH)


def test_the_same_batch_gives_the_same_draws():
    one, other = (run_batch(TableLaws(), WordJudge(), PROMPT, BATCH) for _ in range(2))
    assert isinstance(one, BatchResult) and isinstance(other, BatchResult)
    assert [t.tolist() for t in one.tokens] == [t.tolist() for t in other.tokens]
    assert (one.log_q == other.log_q).all() and one.texts == other.texts


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (RuntimeError("no answer"), "RuntimeError: no answer"),
        (JudgedTexts(np.zeros(1, np.int8), np.zeros(1), [""]), "2 answers"),
        (JudgedTexts(np.array([0, 7], np.int8), np.zeros(2), ["", ""]), "none of 0"),
    ],
)
def test_a_broken_judge_leaves_answers_undetermined(answer, said):
    class Broken:
        def judge(self, prompt, responses):
            if isinstance(answer, Exception):
                raise answer
            return answer

    judged = judge_texts(Broken(), PROMPT, ["a", "b"])
    assert (judged.verdicts == Verdict.UNDETERMINED).all()
    assert np.isnan(judged.scores).all()
    assert all(said in e for e in judged.errors)
