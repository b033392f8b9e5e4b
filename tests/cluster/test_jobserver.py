"""The client of the job server against servers that are none, refuse, or go away; no Ray is started."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace
from typing import Any

import pytest

from tailrisk.cluster import submission
from tailrisk.cluster.submission import End, JobServer
from tailrisk.errors import ClusterError


@contextmanager
def http(status: int, body: str) -> Iterator[str]:
    """A server on loopback that says the same to everybody."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (
            401,
            "Unauthorized: Missing authentication token",
            "asks for a token that this process does not have",
        ),
        (403, "Forbidden: Invalid authentication token", "refuses the token of this process"),
        (404, "nothing", "no job server of Ray answers"),
        (200, "<html>a web page</html>", "no job server of Ray answers"),
        (200, '{"version": 1}', "no job server of Ray answers"),
        (200, '{"ray_version": "1.2.0"}', "no job server of Ray answers"),
    ],
)
def test_servers_that_will_not_do(status, body, told):
    with http(status, body) as address, pytest.raises(ClusterError, match=told) as caught:
        JobServer(address)
    assert str(caught.value).startswith(address)


def test_an_address_where_nothing_listens():
    with pytest.raises(ClusterError, match=r"no job server of Ray answers .*; correct --address"):
        JobServer("http://127.0.0.1:1")


def test_a_server_that_takes_connections_and_says_nothing(monkeypatch):
    monkeypatch.setattr(submission, "READ_S", 0.2)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        with pytest.raises(ClusterError, match=r"no job server of Ray answers .*[Tt]ime"):
            JobServer(f"http://127.0.0.1:{listener.getsockname()[1]}")


def test_the_address_given_outranks_the_environment(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:1")
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:1")
    with http(200, '{"ray_version": "2.60.0"}') as address:
        assert JobServer(address).address == address


SILENCE = "..."


class Client:
    """Each entry of ``tails`` is one connection: what it tells before it ends, or the error it ends with at last.
    ``states`` are what the job's state is said to be, one after the other."""

    def __init__(self, tails: list[list[Any]], states: list[Any], log: str = "") -> None:
        self.tails, self.states, self.log = tails, states, log

    async def tail_job_logs(self, submission_id: str) -> AsyncIterator[str]:
        for told in self.tails.pop(0):
            if isinstance(told, Exception):
                raise told
            if told is SILENCE:
                await asyncio.sleep(60)
            yield told

    def get_job_info(self, submission_id: str) -> Any:
        state = self.states.pop(0)
        if isinstance(state, Exception):
            raise state
        status, code = state
        return SimpleNamespace(status=status, driver_exit_code=code, message=None)

    def get_job_logs(self, submission_id: str) -> str:
        return self.log


def followed(monkeypatch: pytest.MonkeyPatch, client: Client) -> tuple[End, str]:
    monkeypatch.setattr(submission, "_Client", lambda address: client)
    monkeypatch.setattr(submission, "_PAUSE_S", 0.0)
    out: list[str] = []
    end = JobServer("http://cluster:8265").follow("job", out.append)
    assert all(out)
    return end, "".join(out)


RUNNING, THREE = ("RUNNING", None), ("FAILED", 3)


def test_a_lost_connection_is_made_again_and_nothing_is_told_twice(monkeypatch):
    tails = [
        ["one\n", "two\n"],  # ends as if the job had
        [RuntimeError("closed unexpectedly")],
        ["one\ntwo\nthr", "ee\n", ConnectionResetError()],
        [],
    ]
    client = Client(tails, [RUNNING, RUNNING, RUNNING, ConnectionError(), THREE], "one\ntwo\nthree\nfour\n")
    client.states.insert(3, RUNNING)
    client.tails.append([])
    assert followed(monkeypatch, client) == (End("FAILED", 3, ""), "one\ntwo\nthree\nfour\n")


def test_a_connection_that_has_died_in_silence_is_made_again(monkeypatch):
    monkeypatch.setattr(submission, "QUIET_S", 0.05)
    client = Client([["one\n", SILENCE], ["one\n", "two\n"]], [RUNNING, RUNNING, THREE], "one\ntwo\n")
    assert followed(monkeypatch, client)[1] == "one\ntwo\n"


def test_a_server_that_has_gone_for_good_is_told(monkeypatch):
    gone = [ConnectionError("refused") for _ in range(10)]
    with pytest.raises(ClusterError, match=r"refused.*'job' may go on without us"):
        followed(monkeypatch, Client([[] for _ in gone], [RUNNING, *gone]))


def test_a_reader_that_has_left_ends_the_following(monkeypatch):
    monkeypatch.setattr(submission, "_Client", lambda address: Client([["one\n"]], [RUNNING]))

    def leave(text: str) -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        JobServer("http://cluster:8265").follow("job", leave)


def test_a_job_that_is_not_there_is_told_at_once(monkeypatch):
    missing = RuntimeError("Request failed with status code 404: Job job does not exist.")
    with pytest.raises(ClusterError, match=r"nothing is told of the job 'job' .*does not exist"):
        followed(monkeypatch, Client([], [missing]))
