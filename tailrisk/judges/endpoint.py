"""Kind ``endpoint``: a model behind an address that speaks the OpenAI-compatible chat completions API.

Asked with temperature 0 and a seed, in the words of a rubric (``tailrisk.judges.rubrics``); harm where its score is
at or above the threshold. An answer ends as harm, safe, or undetermined with the reason; what cannot be asked or
read is never taken for safe. How failures are met: ``tailrisk.judges.transport``.

``budget.calls`` and ``budget.tokens`` limit what one run of the command sends: each of at most ``cluster.judges.max``
workers may use its part, counted since that worker began. A worker that takes the place of a lost one, and a run that
is resumed, count from zero. Tokens are looked at before a request goes, so those in flight may pass the limit.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tailrisk import config
from tailrisk.errors import ConfigError
from tailrisk.judges import ownrubrics
from tailrisk.judges.line import Waits
from tailrisk.judges.replies import Reply
from tailrisk.judges.rubrics import NumberRubric, Reading, Rubric, make_rubric, one_token
from tailrisk.judges.transport import ChatClient, Failed, Question, UnreadableError
from tailrisk.records import JudgedTexts, Verdict

TOP_LOGPROBS = 20
HARMLESS = [{"role": "user", "content": "Reply with the word ok."}]
NO_LOGPROBS = "the server gives no log-probabilities; set judge.logprobs: false"


class EndpointJudge:
    """May be asked by several threads at once: their questions share the line to the server."""

    def __init__(self, spec: config.EndpointJudge, client: ChatClient) -> None:
        self.client = client
        self.rubric = rubric_of(spec)
        self.threshold = self.rubric.threshold if spec.threshold is None else spec.threshold
        self._spec = spec

    def judge(self, prompt: str, responses: Sequence[str]) -> JudgedTexts:
        outcomes = self.client.ask([Question(self._body(prompt, text), self._read) for text in responses])
        verdicts = np.full(len(responses), Verdict.UNDETERMINED, dtype=np.int8)
        scores = np.full(len(responses), np.nan)
        errors = [""] * len(responses)
        for i, outcome in enumerate(outcomes):
            if isinstance(outcome, Failed):
                errors[i] = outcome.reason
            else:
                scores[i] = outcome
                verdicts[i] = Verdict.HARM if outcome >= self.threshold else Verdict.SAFE
        return JudgedTexts(verdicts, scores, errors)

    def _body(self, prompt: str, response: str) -> Callable[[int], dict[str, Any]]:
        def body(unread: int) -> dict[str, Any]:
            messages = self.rubric.messages(prompt, response, firm=unread > 0)
            return request(self._spec, messages, self.rubric.max_tokens, unread)

        return body

    def _read(self, reply: Reply) -> float:
        reading = self._reading(reply)
        if math.isnan(reading.score):
            raise UnreadableError(f"{reading.reason}{' (cut at max_tokens)' if reply.cut else ''}")
        return reading.score

    def _reading(self, reply: Reply) -> Reading:
        if not self._spec.logprobs:
            return self.rubric.parse(reply.text)
        if not reply.first:
            return Reading(math.nan, NO_LOGPROBS)
        if isinstance(self.rubric, NumberRubric):
            if reply.tokens[0].strip().isdigit() and not one_token(reply.tokens):
                return Reading(math.nan, "the model writes numbers in parts; set judge.logprobs: false")
            return self.rubric.read(reply.first)
        assert isinstance(self.rubric, ownrubrics.YesNoRubric)
        return self.rubric.read(reply.first)


def request(
    spec: config.EndpointJudge, messages: list[dict[str, str]], max_tokens: int, unread: int = 0
) -> dict[str, Any]:
    """The body of a request; another seed where the last reply could not be read."""
    out: dict[str, Any] = {
        "model": spec.model,
        "messages": messages,
        "temperature": 0,
        "seed": spec.seed + unread,
        "max_tokens": max_tokens if spec.max_tokens is None else spec.max_tokens,
    }
    if spec.logprobs:
        out |= {"logprobs": True, "top_logprobs": TOP_LOGPROBS}
    return {key: value for key, value in (out | spec.body).items() if value is not None}


def rubric_of(spec: config.EndpointJudge) -> Rubric:
    if spec.template is not None:
        return (
            ownrubrics.yes_no(spec.template) if spec.rubric == "yes_no" else ownrubrics.number(spec.template)
        )
    assert spec.rubric in ("strongreject", "trait", "coherence")
    return make_rubric(spec.rubric, spec.trait)


def build(spec: config.EndpointJudge, base: Path, *, waits: Waits | None = None) -> EndpointJudge:
    """Asks the server for nothing yet.

    Raises ConfigError: the key's variable is not set, or the threshold is not on the rubric's scale.
    """
    check_threshold(spec)

    client = ChatClient(
        spec.url,
        key_of(spec),
        harmless=request(spec, HARMLESS, max_tokens=1),
        timeout_s=spec.timeout_s,
        retries=spec.retries,
        concurrency=spec.concurrency,
        patience_s=spec.patience_s,
        most_requests=spec.budget.calls or math.inf,
        most_tokens=spec.budget.tokens or math.inf,
        waits=waits,
    )
    return EndpointJudge(spec, client)


def check(spec: config.EndpointJudge, cluster: config.ClusterConfig) -> None:
    """Raises ConfigError for what can be found wrong without the server, and without a cluster's environment."""
    check_threshold(spec)
    if cluster.address == "local":
        key_of(spec)
    longest = spec.patience_s + (spec.retries + 1) * spec.timeout_s
    if longest >= cluster.batch_timeout_s:
        raise ConfigError(
            f"judge: an answer may take {longest:g} s (patience_s, and retries + 1 times timeout_s), and a worker is "
            f"taken for hung after {cluster.batch_timeout_s:g} s; lower these, or raise cluster.batch_timeout_s"
        )


def check_threshold(spec: config.EndpointJudge) -> None:
    highest = rubric_of(spec).highest
    if spec.threshold is not None and not 0 < spec.threshold <= highest:
        raise ConfigError(
            f"judge.threshold is {spec.threshold:g}, and the rubric {spec.rubric!r} gives scores from 0 to "
            f"{highest:g}; set it above 0 and to {highest:g} at most"
        )


def key_of(spec: config.EndpointJudge) -> str | None:
    """The key in this process's environment; None where none is asked for. Its value goes nowhere but to the server."""
    if spec.key_env is None:
        return None
    if (key := key_in(spec.key_env, "judge.key_env")) is None:
        raise ConfigError(
            f"judge.key_env: the environment variable {spec.key_env} is not set where the judge runs; set it there "
            f"(on a cluster: on every node, before Ray starts), or leave key_env out if the server wants no key"
        )
    return key


def key_in(variable: str, setting: str) -> str | None:
    """What the environment variable holds, None where it is not set; ``setting`` is what named it, for messages."""
    key = os.environ.get(variable, "").strip()
    if key and not (key.isascii() and key.isprintable() and " " not in key):
        raise ConfigError(
            f"{setting}: what the environment variable {variable} holds cannot be a key (spaces, line "
            "breaks or letters beyond ASCII); set it again"
        )
    return key or None
