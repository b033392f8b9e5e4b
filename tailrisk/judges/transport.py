"""Questions to a chat completions server, many in flight at once: each ends with a value or with a reason.

An answer is asked about at most ``retries`` + 1 times; outages are waited for (``tailrisk.judges.line``). Tried again
are connection failures, time-outs (of a whole try, to the last byte of its reply), 408, 409, 425, 429, 5xx and
replies that cannot be read, after a wait that doubles, with some chance in it, or as long as the server asks for.
Any other client error is an answer's own and final; 401, 402, 404, 405 and redirects are everybody's, and so is 403
until a first reply came. Redirects are never followed, so the key goes to the configured host alone.
"""

from __future__ import annotations

import asyncio
import json
import random
import threading
import weakref
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from tailrisk.judges.line import GoneError, Line, Ticket, Waits
from tailrisk.judges.replies import Reply, TryError, failure_of, read_reply
from tailrisk.records import JUDGE_GONE

if TYPE_CHECKING:
    import aiohttp

MOST_BYTES = 8 * 2**20
"""Of a reply; longer ones are not read to their end."""
REREAD = 2
"""A reply that cannot be read is asked for again so often at most."""
JITTER = 0.05
"""Part that a wait which the server asked for is longer at most, so that not all come back at once."""

T = TypeVar("T")


class UnreadableError(Exception):
    """The reply does not say what was asked; another one may."""


class Question(NamedTuple, Generic[T]):
    """``body`` of the request, from how often a reply could not be read before; ``read`` gives the value of a reply
    or raises UnreadableError."""

    body: Callable[[int], dict[str, Any]]
    read: Callable[[Reply], T]


class Failed(NamedTuple):
    reason: str


class ChatClient:
    """``url``: the API's base. ``key``: sent as a bearer token, and nowhere else. ``harmless``: body of the request
    that tries whether an outage is over. Safe to be used by several threads, whose questions share one line. The
    network is first touched by ``ask``."""

    def __init__(
        self,
        url: str,
        key: str | None,
        *,
        harmless: dict[str, Any],
        timeout_s: float,
        retries: int,
        concurrency: int,
        patience_s: float,
        most_requests: float = float("inf"),
        most_tokens: float = float("inf"),
        waits: Waits | None = None,
    ) -> None:
        self._url = f"{url}/chat/completions"
        self._headers = {"Content-Type": "application/json", "Accept": "application/json"}
        self._secret = key
        if key is not None:
            self._headers["Authorization"] = f"Bearer {key}"
        parts = urlsplit(url)
        self._name = parts.netloc
        self._proxy = None if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme)
        self._harmless = Question(lambda unread: harmless, lambda reply: None)
        self._timeout_s = timeout_s
        self._tries = retries + 1
        self._patience_s = patience_s
        self._waits = waits or Waits()
        self.line = Line(self._name, concurrency, patience_s, self._waits)
        self.line.most_requests, self.line.most_tokens = most_requests, most_tokens
        self._concurrency = concurrency
        self._ever = False
        self._count = 0
        self._lock = threading.Lock()
        self._loop: _Loop | None = None

    def ask(self, questions: Sequence[Question[T]]) -> list[T | Failed]:
        """One outcome a question, in their order; waits for all."""
        if not questions:
            return []
        with self._lock:
            if self._loop is None:
                self._loop = _Loop(self._concurrency)
                weakref.finalize(self, self._loop.stop)
            first, self._count = self._count, self._count + len(questions)
        future = self._loop.submit(self._all(self._loop, questions, first))
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    async def _all(self, loop: _Loop, questions: Sequence[Question[T]], first: int) -> list[T | Failed]:
        session = await loop.session()
        return list(
            await asyncio.gather(
                *(self._one(session, question, first + i) for i, question in enumerate(questions))
            )
        )

    async def _one(self, session: aiohttp.ClientSession, question: Question[T], number: int) -> T | Failed:
        tries = unread = 0
        told = 0.0
        while True:
            try:
                ticket = await self.line.enter(number)
            except GoneError as error:
                return Failed(f"{JUDGE_GONE}{error}")
            if ticket.probe:
                with suppress(TryError):
                    await self._try(session, self._harmless, 0, ticket)
                continue
            tries += 1
            try:
                return await self._try(session, question, unread, ticket)
            except UnreadableError as error:
                unread += 1
                if unread > REREAD or tries >= self._tries:
                    return Failed(self._clean(f"{error} (asked {_times(unread)})"))
            except TryError as error:
                if error.nobody:
                    return Failed(f"{JUDGE_GONE}{error.reason}")
                if not error.again:
                    return Failed(error.reason)
                told += error.after_s or 0.0
                if told > self._patience_s:
                    return Failed(
                        f"{JUDGE_GONE}{error.reason}: the server asks to wait {told:.0f} s, longer than "
                        f"judge.patience_s ({self._patience_s:g})"
                    )
                if tries >= self._tries:
                    return Failed(f"{error.reason}, after {_times(tries)}")
                if error.after_s is None:
                    await asyncio.sleep(self._backoff(tries))

    async def _try(
        self, session: aiohttp.ClientSession, question: Question[T], unread: int, ticket: Ticket
    ) -> T:
        """One request, and the books of the line about it."""
        try:
            reply = await self._request(session, json.dumps(question.body(unread)).encode("ascii"))
            self.line.answered(reply.used)
            self._ever = True
            return question.read(reply)
        except TryError as error:
            error.reason = self._clean(error.reason)
            if error.nobody:
                self.line.refuse(error.reason)
            elif error.strain:
                after = error.after_s
                if after is not None:
                    after = None if after > self._patience_s else after * (1 + random.uniform(0, JITTER))
                self.line.strained(ticket, error.reason, error.strain, after)
            else:
                self.line.answered(0)
            raise
        finally:
            await self.line.leave(ticket)

    async def _request(self, session: aiohttp.ClientSession, data: bytes) -> Reply:
        """Raises TryError for whatever is not a chat completion."""
        import aiohttp

        try:
            async with (
                asyncio.timeout(self._timeout_s),
                session.post(
                    self._url, data=data, headers=self._headers, proxy=self._proxy, allow_redirects=False
                ) as response,
            ):
                body = await _body(response)
        except TimeoutError:
            reason = f"no whole reply from {self._name} in {self._timeout_s:g} s (judge.timeout_s)"
            raise TryError(reason, again=True, strain="failed") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # Only the kind: messages may repeat a header.
            reason = f"no connection to {self._name} ({_kind_of(error)})"
            raise TryError(reason, again=True, strain="silent") from None
        if response.status != 200:
            failure = failure_of(response.status, response.headers, body, f"{self._name}{response.url.path}")
            failure.nobody = failure.nobody and not (response.status == 403 and self._ever)
            raise failure
        try:
            return read_reply(body, len(data))
        except (TypeError, ValueError, ArithmeticError, RecursionError) as error:
            raise TryError(f"the server's reply is malformed ({type(error).__name__})", again=True) from None

    def _clean(self, reason: str) -> str:
        """Without the key: a server may say back what it was sent."""
        return reason if self._secret is None else reason.replace(self._secret, "***")

    def _backoff(self, tries: int) -> float:
        most = min(self._waits.most, self._waits.first * 2 ** (tries - 1))
        return most * random.uniform(0.5, 1.0)

    def close(self) -> None:
        """Ends the connections; a later ``ask`` opens new ones."""
        with self._lock:
            loop, self._loop = self._loop, None
        if loop is not None:
            loop.stop()


class _Loop:
    """An event loop in a thread of its own, with one session."""

    def __init__(self, connections: int) -> None:
        self._connections = connections
        self._session: aiohttp.ClientSession | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="tailrisk-judge", daemon=True)
        self._thread.start()

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def session(self) -> aiohttp.ClientSession:
        if self._session is None:
            import aiohttp

            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self._connections),
                timeout=aiohttp.ClientTimeout(total=None),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session

    def stop(self) -> None:
        if self._loop.is_closed():
            return
        self.submit(self._end())
        self._thread.join(5.0)
        if not self._thread.is_alive():
            self._loop.close()

    async def _end(self) -> None:
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        if self._session is not None:
            await self._session.close()
        self._loop.stop()


async def _body(response: aiohttp.ClientResponse) -> bytes:
    parts, size = [], 0
    async for part in response.content.iter_chunked(2**16):
        parts.append(part)
        size += len(part)
        if size > MOST_BYTES:
            response.close()
            raise TryError(f"the server's reply is longer than {MOST_BYTES:,} bytes", again=True)
    return b"".join(parts)


def _kind_of(error: BaseException) -> str:
    """Such as ``ClientConnectorError: connection refused``."""
    number = getattr(error, "os_error", error)
    text = getattr(number, "strerror", None)
    name = type(error).__name__
    return f"{name}: {text}" if isinstance(text, str) and text else name


def _times(n: int) -> str:
    return "1 time" if n == 1 else f"{n} times"
