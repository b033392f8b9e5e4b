"""When a request may go to a judge's server: how many at once, pauses, outages, and a budget. No network here.

*How many at once* goes by what comes back, as TCP does it: half as many after a sign of overload (429, 5xx, a
time-out; once for all requests that were on their way together), one more with each reply up to half of where the
trouble began, slowly beyond. *Pauses*: a server that says ``Retry-After`` is left alone by everybody until then.

*Outage*: requests about several answers failed in a row and none succeeded in between. All wait then. One at a time
is let through with a harmless question in place of its own, so that no answer that is itself the trouble can pass for
an outage; the waits between these grow, and the first reply ends it. When ``patience_s`` seconds went by since the
first failure, all that wait get GoneError, and whoever comes later too, but for one harmless question a minute.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from contextlib import suppress
from typing import Literal, NamedTuple

START = 8
"""Requests at once in the beginning."""
ROW = 3
"""An outage: failures in a row about so many different answers, or so many without any connection."""

Sign = Literal["busy", "failed", "silent"]
"""The server says that it has too much to do; it fails, or takes too long; nothing came of the connection."""

_log = logging.getLogger(__name__)


class Waits(NamedTuple):
    """Seconds. ``first``: before an answer's second try, doubling up to ``most``. ``settle``: how long a server is
    busy, for everybody, before that is an outage. ``probe_first``, ``probe_most``: between tries
    in an outage, doubling."""

    first: float = 0.5
    most: float = 30.0
    settle: float = 5.0
    probe_first: float = 1.0
    probe_most: float = 60.0


class GoneError(Exception):
    """No answer can be judged for now; the message says why."""


class Ticket(NamedTuple):
    """One request on its way. ``probe``: it is to ask the harmless question."""

    answer: int
    epoch: int
    probe: bool


class Line:
    """``most`` requests at once at most; ``name`` of the server for messages. Belongs to one event loop."""

    def __init__(self, name: str, most: int, patience_s: float, waits: Waits | None = None) -> None:
        self.limit = float(min(most, START))
        self.requests = 0
        self.tokens = 0
        self.most_requests = math.inf
        self.most_tokens = math.inf
        self._name = name
        self._most = most
        self._patience_s = patience_s
        self._waits = waits or Waits()
        self._ease = float(most)
        self._epoch = 0
        self._active = 0
        self._change = asyncio.Condition()
        self._paused_until = 0.0
        self._refused = ""
        self._failing: set[int] = set()
        self._failed_since: float | None = None
        self._failures = 0
        self._last = ""
        self._down = False
        self._probing = False
        self._probe_wait = self._waits.probe_first
        self._next_probe = 0.0

    async def enter(self, answer: int) -> Ticket:
        """Waits for a turn. Raises GoneError where there will be none."""
        async with self._change:
            while (wait := self._wait()) > 0:
                with suppress(TimeoutError):
                    async with asyncio.timeout(None if wait == math.inf else wait):
                        await self._change.wait()
            self._active += 1
            self.requests += 1
            self._probing = self._probing or self._down
            return Ticket(answer, self._epoch, self._down)

    async def leave(self, ticket: Ticket) -> None:
        """The request is over, whatever came of it."""
        async with self._change:
            self._active -= 1
            self._probing = self._probing and not ticket.probe
            self._change.notify_all()

    def answered(self, tokens: int) -> None:
        """A reply came, good or bad, for so many tokens."""
        self.tokens += tokens
        if self._down:
            _log.warning("the judge at %s answers again", self._name)
        self._failing.clear()
        self._failed_since, self._failures = None, 0
        self._down, self._probe_wait = False, self._waits.probe_first
        self.limit = min(
            float(self._most), self.limit + (1.0 if self.limit < self._ease else 1.0 / self.limit)
        )

    def strained(self, ticket: Ticket, reason: str, sign: Sign, after_s: float | None) -> None:
        """The request failed for no fault of its own. ``after_s``: when the server wants to be asked again."""
        now = time.monotonic()
        if ticket.epoch == self._epoch:
            self._epoch += 1
            if not self._failures:  # where this trouble began, however low it brings the limit
                self._ease = self.limit / 2
            self.limit = max(1.0, self.limit / 2)
        if after_s is not None:
            self._paused_until = max(self._paused_until, now + after_s)
        self._failed_since = now if self._failed_since is None else self._failed_since
        self._failures += 1
        self._failing.add(ticket.answer)
        self._last = reason
        if ticket.probe:
            self._probe_wait = min(2 * self._probe_wait, self._waits.probe_most)
        if not self._down and self._is_out(sign, now - self._failed_since):
            self._down = True
            _log.warning(
                "the judge at %s is out (%s): paused, and tried again for %g s at most",
                self._name,
                reason,
                self._patience_s,
            )
        self._next_probe = max(now + self._probe_wait, self._paused_until)

    def _is_out(self, sign: Sign, lasted: float) -> bool:
        if sign == "silent":
            return self._failures >= ROW
        return len(self._failing) >= ROW and (sign == "failed" or lasted >= self._waits.settle)

    def refuse(self, reason: str) -> None:
        """No request will ever be answered."""
        self._refused = self._refused or reason

    def _wait(self) -> float:
        """Seconds to wait for a turn if nothing changes: 0 now, inf until something does."""
        if self._refused:
            raise GoneError(self._refused)
        if self.requests >= self.most_requests:
            raise GoneError(
                f"the {self.most_requests:,.0f} requests of judge.budget.calls are used up; raise it, or run the same "
                "command again for as many more"
            )
        if self.tokens >= self.most_tokens:
            raise GoneError(
                f"{self.tokens:,} tokens are used, and judge.budget.tokens is {self.most_tokens:,.0f}; raise it, or "
                "run the same command again for as many more"
            )
        now = time.monotonic()
        if self._down:
            assert self._failed_since is not None
            if self._probing:
                return math.inf
            if now >= self._next_probe:
                return 0.0
            out = now - self._failed_since
            # A longer wait than there is patience left is not begun.
            if out + self._next_probe - now > self._patience_s:
                raise GoneError(
                    f"no reply from {self._name} for {out:.0f} s (judge.patience_s is {self._patience_s:g}); the last "
                    f"failure: {self._last}"
                )
            return self._next_probe - now
        if now < self._paused_until:
            return self._paused_until - now
        return 0.0 if self._active < int(self.limit) else math.inf
