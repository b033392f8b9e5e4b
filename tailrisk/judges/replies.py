"""What comes back from a chat completions server: a reply that can be read, or what kind of failure it is."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

from tailrisk.judges.line import Sign

AGAIN = frozenset({408, 409, 425, 429})
"""Client errors that another try may be rid of."""
NOBODY = frozenset({401, 402, 404, 405, 407})
"""Client errors that have nothing to do with the answer that was asked about."""
_CODE = re.compile(r"[\w.-]{1,60}")
_SHOWN = 200


class TryError(Exception):
    """One try came to nothing. ``again``: another one may do better; ``strain``: how the server, or the
    way to it, shows that it is overloaded or out; ``after_s``: when it wants to be asked again; ``nobody``: no
    other answer will fare better."""

    def __init__(
        self,
        reason: str,
        *,
        again: bool = False,
        strain: Sign | None = None,
        after_s: float | None = None,
        nobody: bool = False,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.again = again
        self.strain: Sign | None = strain
        self.after_s = after_s
        self.nobody = nobody


class Reply(NamedTuple):
    """``tokens``: texts of the reply's tokens, ``first``: probabilities of its first token by the token's text; both
    empty where the server gave no log-probabilities. ``cut``: it ended at max_tokens. ``used``: tokens of the request
    and the reply, as the server counts them (where it does not, a token for every four bytes)."""

    text: str
    tokens: tuple[str, ...]
    first: Mapping[str, float]
    cut: bool
    used: int


def read_reply(body: bytes, sent: int) -> Reply:
    """The reply in the body of a good response to a request of ``sent`` bytes. Raises TryError for anything else."""
    data = _json(body)
    choices = data.get("choices") if isinstance(data, dict) else None
    if not (
        isinstance(data, dict) and isinstance(choices, list) and choices and isinstance(choices[0], dict)
    ):
        raise TryError("the server's reply is not a chat completion (no 'choices')", again=True)
    choice = choices[0]
    message = choice.get("message")
    text = message.get("content") if isinstance(message, dict) else None
    ended = choice.get("finish_reason")
    if ended == "content_filter" or (isinstance(message, dict) and isinstance(message.get("refusal"), str)):
        raise TryError("the judge's content filter held the reply back")
    if not isinstance(text, str):
        cut = "; it ended at max_tokens" if ended == "length" else ""
        raise TryError(f"the reply's content is {_kind(text)}, not a text{cut}", again=True)
    tokens, first = _probabilities(choice.get("logprobs"))
    usage = data.get("usage")
    used = usage.get("total_tokens") if isinstance(usage, dict) else None
    if not isinstance(used, int) or isinstance(used, bool) or used < 0:
        used = (sent + len(text.encode("utf-8", "replace"))) // 4
    return Reply(text, tokens, first, ended == "length", used)


def failure_of(status: int, headers: Mapping[str, str], body: bytes, place: str) -> TryError:
    """What a response other than a good one means; ``place`` names the address."""
    reason = f"HTTP {status} from {place}"
    if 300 <= status < 400:
        return TryError(
            f"{reason}: redirects are not followed; set judge.url to the final address", nobody=True
        )
    code, message = _said(body)
    if status in (401, 403):
        # What such servers say may hold a part of the key.
        hint = "look whether the key is right and may use this model"
        return TryError(f"{reason}: the server refuses access; {hint}", nobody=True)
    if status in NOBODY:
        said = f": {message}" if message else ""
        return TryError(f"{reason}{said}; look at judge.url and judge.model", nobody=True)
    if code:
        reason = f"{reason} ({code})"
    if status in AGAIN or status >= 500:
        strain: Sign | None = None if status == 409 else "busy" if status == 429 else "failed"
        return TryError(reason, again=True, strain=strain, after_s=retry_after(headers) if strain else None)
    return TryError(reason)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that ``Retry-After`` asks for, as a number or as a date; a date by the server's own clock."""
    value = headers.get("Retry-After", "").strip()
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            then = parsedate_to_datetime(value)
            now = parsedate_to_datetime(headers.get("Date", ""))
            seconds = (then - now).total_seconds()
        except (TypeError, ValueError):
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        kind = "HTML" if body.lstrip()[:1] == b"<" else "not JSON"
        raise TryError(f"the server's reply is {kind}, {len(body):,} bytes", again=True) from None


def _said(body: bytes) -> tuple[str, str]:
    """(code, message) of an OpenAI-style error, '' where there is none. The code alone never repeats what was sent."""
    try:
        error = json.loads(body).get("error")
        if not isinstance(error, dict):
            return "", ""
    except (ValueError, RecursionError, AttributeError):
        return "", ""
    code = next(
        (c for c in (error.get("code"), error.get("type")) if isinstance(c, str) and _CODE.fullmatch(c)), ""
    )
    message = error.get("message")
    return code, " ".join(message.split())[:_SHOWN] if isinstance(message, str) else ""


def _probabilities(logprobs: Any) -> tuple[tuple[str, ...], dict[str, float]]:
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    if not (isinstance(content, list) and content and all(isinstance(c, dict) for c in content)):
        return (), {}
    tokens = tuple(t for c in content if isinstance(t := c.get("token"), str))
    first: dict[str, float] = {}
    for entry in content[0].get("top_logprobs") or [content[0]]:
        token = entry.get("token") if isinstance(entry, dict) else None
        value = entry.get("logprob") if isinstance(entry, dict) else None
        if isinstance(token, str) and isinstance(value, int | float) and value <= 1e-6:
            first[token] = first.get(token, 0.0) + math.exp(value)
    return (tokens, first) if first and len(tokens) == len(content) else ((), {})


def _kind(value: Any) -> str:
    return "null" if value is None else f"a {type(value).__name__}"
