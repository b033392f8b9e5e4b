"""Paraphrases by a model behind an address that speaks the OpenAI-compatible chat completions API.

Asked as judges are (``tailrisk.judges.transport``): tried again, outages waited for, the key read from an environment
variable and sent to that host alone. What cannot be had ends as a failure with its reason.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

from pydantic import Field, JsonValue

from tailrisk.endpointconfig import Address, KeyName
from tailrisk.errors import ConfigError
from tailrisk.judges.endpoint import HARMLESS, key_in
from tailrisk.judges.line import Waits
from tailrisk.judges.replies import Reply
from tailrisk.judges.transport import ChatClient, Failed, Question, UnreadableError
from tailrisk.perturbations import paraphrase
from tailrisk.perturbations.paraphrase import NoParaphraseError, Wanted, read_paraphrase
from tailrisk.proposalconfig import Section
from tailrisk.records import JUDGE_GONE

OPTIONS = {
    "timeout_s": "--timeout",
    "patience_s": "--patience",
    "url": "--url",
    "model": "--paraphrase",
    "key_env": "--key-env",
}


class ParaphraseEndpoint(Section):
    """``key_env``: the NAME of the environment variable with the key. ``body``: further keys of each request; null
    leaves one of ours out. ``most_calls``: requests at most, those tried again included."""

    url: Address
    model: str = Field(min_length=1)
    key_env: KeyName = None
    temperature: float = Field(default=0.9, ge=0.0, le=2.0)
    seed: int = Field(default=0, ge=0, lt=2**31)
    body: dict[str, JsonValue] = Field(default_factory=dict)
    timeout_s: float = Field(default=60.0, gt=0.0)
    retries: int = Field(default=5, ge=0, le=20)
    concurrency: int = Field(default=8, ge=1, le=1024)
    patience_s: float = Field(default=300.0, ge=0.0)
    most_calls: int | None = Field(default=None, ge=1)


def endpoint_source(spec: ParaphraseEndpoint, *, waits: Waits | None = None) -> paraphrase.Source:
    """Raises ConfigError: the key's variable is not set. The network is first touched when the source is asked."""
    key = None
    if spec.key_env is not None and (key := key_in(spec.key_env, "--key-env")) is None:
        raise ConfigError(
            f"--key-env: the environment variable {spec.key_env} is not set; set it, or leave it out"
        )

    def ask(wanted: Sequence[Wanted]) -> list[paraphrase.Reply]:
        client = ChatClient(
            spec.url,
            key,
            harmless=_request(spec, HARMLESS, 1, 0),
            timeout_s=spec.timeout_s,
            retries=spec.retries,
            concurrency=spec.concurrency,
            patience_s=spec.patience_s,
            most_requests=spec.most_calls or math.inf,
            waits=waits,
        )
        try:
            outcomes = client.ask([Question(_body(spec, one), _reader(one)) for one in wanted])
        finally:
            client.close()
        return [NoParaphraseError(said(o.reason)) if isinstance(o, Failed) else o for o in outcomes]

    return ask


def said(reason: str) -> str:
    """A reason in the words of this command: settings of a judge are options here."""
    reason = reason.removeprefix(JUDGE_GONE).replace("the judge's", "the server's")
    reason = reason.replace("judge.budget.calls", "--calls")
    return re.sub(r"judge\.(\w+)", lambda m: OPTIONS.get(m.group(1), m.group(1)), reason)


def _body(spec: ParaphraseEndpoint, one: Wanted) -> Callable[[int], dict[str, Any]]:
    return lambda unread: _request(spec, one.messages, one.most_tokens, one.number + 1000 * unread)


def _reader(one: Wanted) -> Callable[[Reply], str]:
    def read(reply: Reply) -> str:
        if reply.cut:
            raise UnreadableError("the reply was cut at max_tokens")
        try:
            return read_paraphrase(one.base.text, reply.text)
        except NoParaphraseError as error:
            raise UnreadableError(str(error)) from None

    return read


def _request(
    spec: ParaphraseEndpoint, messages: list[dict[str, str]], max_tokens: int, number: int
) -> dict[str, Any]:
    out: dict[str, Any] = {
        "model": spec.model,
        "messages": messages,
        "temperature": spec.temperature,
        "seed": spec.seed + number,
        "max_tokens": max_tokens,
    }
    return {key: value for key, value in (out | spec.body).items() if value is not None}
