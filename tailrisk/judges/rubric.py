"""Kind ``rubric``: an instruct model is asked to grade an answer; the rubrics are in ``rubrics``.

The question goes through the model's chat template; where the template has no place for a system message, what it
says comes first in the question. ``strongreject`` is read from the greedy reply. ``trait`` and ``coherence`` are the
expected value over the tokens of the numbers 0 to 100, in one pass, where each of them is one token; where the
tokenizer splits numbers, they are read from the greedy reply too. What cannot be read is asked once more, with a
firmer request, and is then undetermined.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tailrisk.config import Parallel
from tailrisk.errors import ModelError
from tailrisk.judgeconfig import RubricJudge as Spec
from tailrisk.judges.modelparts import (
    Ids,
    asked,
    at,
    check_parts,
    clipped,
    fits,
    read_next,
    texts_digest,
    verdicts,
)
from tailrisk.judges.rubrics import NumberRubric, Reading, make_rubric
from tailrisk.records import JudgedTexts, Prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from tailrisk.models.reader import NextToken, Reader

NUMBERS = tuple(str(number) for number in range(101))


class RubricJudge:
    def __init__(self, reader: Reader, spec: Spec) -> None:
        self._reader = reader
        self._spec = spec
        self._rubric = make_rubric(spec.rubric, spec.trait)
        self._max_tokens = spec.max_tokens or self._rubric.max_tokens
        self._system = takes_system(reader.tokenizer)
        self._by_tokens = isinstance(self._rubric, NumberRubric) and whole_numbers(reader.tokenizer)
        self._numbers, self._spelt = (
            number_tokens(reader.tokenizer, reader.vocabulary) if self._by_tokens else ([], [])
        )

    def judge(self, prompt: str, responses: Sequence[str]) -> JudgedTexts:
        readings = self._readings(prompt, responses, firm=False)
        open_ = [i for i, reading in enumerate(readings) if reading.reason]
        if open_:
            again = self._readings(prompt, [responses[i] for i in open_], firm=True)
            for i, second in zip(open_, again, strict=True):
                first = readings[i].reason
                reason = f"{first}; asked again: {second.reason}" if second.reason != first else first
                readings[i] = second._replace(reason=reason) if second.reason else second
        return verdicts(readings, self._spec.threshold)

    def _readings(self, prompt: str, responses: Sequence[str], *, firm: bool) -> list[Reading]:
        questions = asked(lambda text: self._question(prompt, text, firm), responses)
        if self._by_tokens:
            return read_next(self._reader, questions, self._numbers, self._read)
        found = [fits(self._reader, question, self._max_tokens) for question in questions]
        open_ = [question for question in found if not isinstance(question, Reading)]
        replies = iter(self._reader.replies(open_, self._max_tokens))
        return [q if isinstance(q, Reading) else self._rubric.parse(next(replies)) for q in found]

    def _question(self, prompt: str, response: str, firm: bool) -> Ids:
        response = clipped(self._reader.tokenizer, response, self._spec.clip)
        messages = self._rubric.messages(prompt, response, firm=firm)
        return render(self._reader.tokenizer, messages, system=self._system)

    def _read(self, law: NextToken) -> Reading:
        assert isinstance(self._rubric, NumberRubric)
        sums = np.zeros(len(NUMBERS))
        np.add.at(sums, self._spelt, law.asked)
        probabilities = dict(zip(NUMBERS, sums.tolist(), strict=True))
        if law.likeliest not in self._numbers:
            probabilities[str(self._reader.tokenizer.decode([law.likeliest]))] = law.highest
        return self._rubric.read(probabilities)


def build(spec: Spec, base: Path) -> RubricJudge:
    """Loads the model. Errors: ConfigError, ModelError."""
    from tailrisk.models.reader import Reader

    reader = Reader.load(
        spec.model, spec.adapter, base, dtype=spec.dtype, device=spec.device, batch=spec.batch
    )
    return RubricJudge(reader, spec)


def check(spec: Spec, base: Path, parallel: Parallel, digest: bool) -> dict[str, str]:
    """All that can be found wrong without weights; digests. Errors: ConfigError, ModelError."""
    rubric = make_rubric(spec.rubric, spec.trait)
    parts = check_parts(spec, base, parallel, digest)
    with at("judge.model"):
        render(parts.tokenizer, rubric.messages("x", "y"), system=takes_system(parts.tokenizer))
    return {**parts.digests, "texts": texts_digest("rubric 1", rubric.digest)}


def render(tokenizer: PreTrainedTokenizerBase, messages: Sequence[dict[str, str]], *, system: bool) -> Ids:
    """Token ids up to where the reply begins; without ``system`` the system message goes into the user's.

    Errors: ModelError where there is no chat template or it refuses.
    """
    from tailrisk.models.tokens import render_prompt

    if not system and messages[0]["role"] == "system":
        first, second, *rest = messages
        messages = [{**second, "content": f"{first['content']}\n\n{second['content']}"}, *rest]
    return render_prompt(tokenizer, Prompt(id="of the judge", messages=tuple(messages)))


def takes_system(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a system message reaches the model; some templates drop it, some refuse it."""
    from tailrisk.models.tokens import reads_system_prompt

    try:
        return reads_system_prompt(tokenizer)
    except ModelError:
        return False


def whole_numbers(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether each number from 0 to 100 is one token."""
    found: Any = tokenizer(list(NUMBERS), add_special_tokens=False, verbose=False)["input_ids"]
    unknown = tokenizer.unk_token_id
    return all(len(ids) == 1 and ids[0] != unknown for ids in found)


def number_tokens(tokenizer: PreTrainedTokenizerBase, vocabulary: int) -> tuple[list[int], list[int]]:
    """Ids of all tokens that spell a number from 0 to 100, and the number of each."""
    from tailrisk.models.reader import spellings

    index = {number: i for i, number in enumerate(NUMBERS)}
    pairs = [(i, index[text]) for i, text in enumerate(spellings(tokenizer, vocabulary)) if text in index]
    return [i for i, _ in pairs], [number for _, number in pairs]
