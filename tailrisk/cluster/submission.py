"""Jobs on a Ray cluster that somebody else runs, through the HTTP job server of its head.

Every call has a time limit, and what goes wrong is a ClusterError. Tokens are those of Ray's own environment
(RAY_AUTH_MODE, RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH). The address given counts: Ray's client would prefer
RAY_ADDRESS to it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
from ray.exceptions import AuthenticationError
from ray.job_submission import JobStatus, JobSubmissionClient

from tailrisk.errors import ClusterError

CONNECT_S, READ_S = 10.0, 60.0
STOP_S = 30.0
"""A job is killed 3 s after it was asked to stop, by default."""
QUIET_S = 60.0
"""A connection over which nothing comes for so long may be dead: it is made anew."""
_PATIENCE = 5
_PAUSE_S = 2.0
_ENVIRONMENT = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
_NOISY = (
    "ray.dashboard.modules.job.sdk",
    "ray.dashboard.modules.dashboard_sdk",
    "ray._private.runtime_env.packaging",
)


class End(NamedTuple):
    """How a job ended: ``exit_code`` of its command, None where it never ran or was killed with its cluster."""

    status: str
    exit_code: int | None
    message: str


class _Client(JobSubmissionClient):
    """Ray's client waits for ever for an address that takes no connection, or takes it and does not answer."""

    def _do_request(self, *args: Any, **kwargs: Any) -> Any:
        return super()._do_request(*args, **{"timeout": (CONNECT_S, READ_S), **kwargs})


class JobServer:
    """The job server at ``address`` (http://HOST:8265).

    Raises:
        ClusterError: nothing answers there, it is no job server, or it refuses our token.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        for name in _NOISY:
            logging.getLogger(name).setLevel(logging.WARNING)
        remedy = "; correct --address, forward the port, or start the cluster's head with its dashboard"
        with self._errors("no job server of Ray answers", remedy), _without(*_ENVIRONMENT):
            self._client = _Client(address)

    def submit(self, entrypoint: str, working_dir: Path, submission_id: str | None) -> str:
        """Send the folder and start the command in it; the id of the job.

        Raises:
            ClusterError: the id is taken, or the server refuses the job.
        """
        try:
            with self._errors("the job was not accepted"):
                return self._client.submit_job(
                    entrypoint=entrypoint,
                    runtime_env={"working_dir": str(working_dir)},
                    submission_id=submission_id,
                )
        except ClusterError as error:
            if "already exists" not in str(error):
                raise
        raise ClusterError(
            f"{self.address}: there is a job {submission_id!r} already, and an id is used once; give another "
            "--submission-id, also to resume a run"
        )

    def follow(self, submission_id: str, write: Callable[[str], object]) -> End:
        """Hand on what the job prints until it has ended. A connection that is lost is made again; nothing is
        written twice.

        Raises:
            ClusterError: there is no such job, or the server does not answer any more.
        """
        self._info(submission_id)
        log, failures = _Log(write), 0
        while True:
            try:
                asyncio.run(self._tail(submission_id, log))
            except BrokenPipeError:  # our own reader has left
                raise
            except (RuntimeError, OSError, aiohttp.ClientError):
                pass  # A lost connection may also look like the end of the log: the job's state tells.
            try:
                end, failures = self._end(submission_id), 0
            except ClusterError as error:
                end, failures = None, failures + 1
                if failures == _PATIENCE:
                    raise ClusterError(f"{error}; the job {submission_id!r} may go on without us") from None
            if end is not None:
                self._rest(submission_id, log)
                return end
            time.sleep(_PAUSE_S)

    def stop(self, submission_id: str) -> tuple[bool, str]:
        """Stop a job and wait until it has ended: whether it was running, and its status at the end.

        Raises:
            ClusterError: there is no such job, or it has not ended within 30 s.
        """
        with self._errors(f"the job {submission_id!r} was not stopped"):
            running = self._client.stop_job(submission_id)
        deadline = time.monotonic() + STOP_S
        while time.monotonic() < deadline:
            if (end := self._end(submission_id)) is not None:
                return running, end.status
            time.sleep(0.5)
        raise ClusterError(
            f"{self.address}: the job {submission_id!r} was asked to stop and still runs; ask again"
        )

    def _info(self, submission_id: str) -> Any:
        with self._errors(f"nothing is told of the job {submission_id!r}"):
            return self._client.get_job_info(submission_id)

    def _end(self, submission_id: str) -> End | None:
        info = self._info(submission_id)
        if not JobStatus(info.status).is_terminal():
            return None
        return End(JobStatus(info.status).value, info.driver_exit_code, info.message or "")

    async def _tail(self, submission_id: str, log: _Log) -> None:
        log.again()
        async with aclosing(self._client.tail_job_logs(submission_id)) as told:  # pyright: ignore[reportArgumentType]
            while (text := await asyncio.wait_for(anext(told, None), QUIET_S)) is not None:
                log.take(text)

    def _rest(self, submission_id: str, log: _Log) -> None:
        """What was printed while no connection stood; the log of a node that has gone is gone."""
        try:
            with self._errors("no log"):
                text = self._client.get_job_logs(submission_id)
        except ClusterError:
            return
        log.again()
        log.take(text or "")

    @contextmanager
    def _errors(self, what: str, remedy: str = "") -> Iterator[None]:
        try:
            yield
        except AuthenticationError as error:
            raise ClusterError(f"{self.address}: {_authentication(error)}") from None
        except (RuntimeError, OSError, LookupError, TypeError, ValueError) as error:
            raise ClusterError(f"{self.address}: {what} ({_reason(error)}){remedy}") from error


class _Log:
    """Every connection tells the log from its beginning; what was written is passed over."""

    def __init__(self, write: Callable[[str], object]) -> None:
        self._write, self._written, self._place = write, 0, 0

    def again(self) -> None:
        self._place = 0

    def take(self, text: str) -> None:
        new = text[max(0, self._written - self._place) :]
        self._place += len(text)
        if new:
            self._write(new)
            self._written = self._place


def _authentication(error: AuthenticationError) -> str:
    if "Authentication required" in error.message:
        return (
            "the cluster asks for a token that this process does not have; set RAY_AUTH_MODE=token and "
            "RAY_AUTH_TOKEN_PATH to the file with the cluster's token"
        )
    if "Authentication failed" in error.message:
        return (
            "the cluster refuses the token of this process; RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or "
            "~/.ray/auth_token, in this order, must give the cluster's own"
        )
    return error.message.strip().splitlines()[0][:300]


def _reason(error: Exception) -> str:
    """The last line of what the server or the client says, which in a traceback is the error itself."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip(" .")]
    return f"{type(error).__name__}: {lines[-1][:300]}" if lines else type(error).__name__


@contextmanager
def _without(*names: str) -> Iterator[None]:
    before = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(before)
