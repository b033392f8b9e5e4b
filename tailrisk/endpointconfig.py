"""The part of the configuration that says how a judge behind an address is asked."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, JsonValue, model_validator

from tailrisk.judgesection import JudgeSection
from tailrisk.proposalconfig import Section

MOST_AT_ONCE = 8


def address_of(value: str) -> str:
    """The base of an API of chat completions, without a slash at its end. Raises ValueError."""
    try:
        parts = urlsplit(value)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ValueError("not an address; write it as http://host:8000/v1") from None
    if "@" in parts.netloc:
        # Not shown: it may hold a password.
        raise ValueError("holds a name or a password; put the key in an environment variable (key_env)")
    if parts.query or parts.fragment:
        raise ValueError("has a '?' or '#' part; give the API's base alone (http://host:8000/v1)")
    if parts.scheme not in ("http", "https") or not host:
        raise ValueError(f"{value!r} is not http:// or https:// with a host; such as http://host:8000/v1")
    if parts.path.rstrip("/").endswith("/completions"):
        raise ValueError(f"{value!r} is the address of a call; give the base before /chat/completions")
    return value.rstrip("/")


def name_of_key(value: str | None) -> str | None:
    """The name of an environment variable that holds a key. Raises ValueError."""
    if value is not None and not re.fullmatch(r"[A-Z_][A-Z0-9_]{0,63}", value):
        # Not shown: it may be the key itself.
        raise ValueError(
            "is not the NAME of an environment variable (capital letters, digits and _, such as JUDGE_KEY); the "
            "key itself never stands in a configuration"
        )
    return value


Address = Annotated[str, AfterValidator(address_of)]
KeyName = Annotated[str | None, AfterValidator(name_of_key)]


class JudgeBudget(Section):
    """What one run of the command may ask of the endpoint; see ``tailrisk.judges.endpoint``."""

    calls: int | None = Field(default=None, ge=1)
    """Requests, those tried again included; null: no limit."""
    tokens: int | None = Field(default=None, ge=1)
    """What the server says they used; null: no limit."""


class EndpointJudge(JudgeSection):
    """A model behind an address that speaks the OpenAI-compatible chat completions API."""

    kind: Literal["endpoint"]
    url: Address
    """The API's base (``http://host:8000/v1``)."""
    model: str = Field(min_length=1)
    """As the server names it."""
    key_env: KeyName = None
    """The NAME of the environment variable with the key; null: there is none."""
    rubric: Literal["strongreject", "trait", "coherence", "yes_no", "number"] = "strongreject"
    """What the model is asked; ``yes_no`` and ``number`` (0 to 100) ask the ``template``."""
    trait: str | None = None
    """What the trait is, in words, for ``rubric: trait``."""
    template: str | None = None
    """A question of your own, with ``{prompt}`` and ``{response}`` in it."""
    threshold: float | None = None
    """Harm is a score at or above it; null: the rubric's own."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Sent with each request."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Of a reply; null: the rubric's own."""
    logprobs: bool = False
    """The score is read from the probabilities of the reply's first token."""
    body: dict[str, JsonValue] = Field(default_factory=dict)
    """Further keys of each request; null leaves one of ours out."""
    timeout_s: float = Field(default=60.0, gt=0.0)
    """Seconds for one try, to its last byte."""
    retries: int = Field(default=5, ge=0, le=20)
    """Tries after the first."""
    concurrency: int = Field(default=32, ge=1, le=1024)
    """Requests in flight at most, of one judge worker."""
    patience_s: float = Field(default=600.0, ge=0.0)
    """Seconds that an outage is waited for."""
    budget: JudgeBudget = JudgeBudget()
    """What one run of the command may ask."""

    @model_validator(mode="after")
    def _asks(self) -> EndpointJudge:
        own = self.rubric in ("yes_no", "number")
        if own != (self.template is not None):
            raise ValueError(
                f"the rubric {self.rubric!r} needs a template with {{prompt}} and {{response}} in it"
                if own
                else f"template is for the rubrics yes_no and number; the rubric is {self.rubric!r}"
            )
        if self.template is not None and "{response}" not in self.template:
            raise ValueError("template: without {response} the model never sees the answer that it judges")
        if (self.rubric == "trait") != bool(self.trait and self.trait.strip()):
            raise ValueError(
                "trait (what the trait is, in words) goes with the rubric 'trait', and only with it"
            )
        if self.logprobs and self.rubric == "strongreject":
            raise ValueError(
                "logprobs: the rubric 'strongreject' replies with several lines, not with one token"
            )
        if taken := sorted({"messages", "model", "stream", "n"} & set(self.body)):
            raise ValueError(f"body.{taken[0]} is not for you to set: the judge does")
        return self

    @property
    def at_once(self) -> int:
        # Most of a batch is often judged already: what is left of several fills the line.
        return min(MOST_AT_ONCE, self.concurrency)

    def shared(self, workers: int) -> Self:
        limits = {k: v and max(1, v // workers) for k, v in self.budget.model_dump().items()}
        return self.model_copy(update={"budget": JudgeBudget(**limits)})
