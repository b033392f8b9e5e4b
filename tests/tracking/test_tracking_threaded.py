"""The thread between driver and server: nothing lost, nothing twice, nobody held up."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from trackingkit import estimate, outcome, state

from tailrisk.tracking.threaded import ThreadedTracker


class Server:
    """A backend that fails the first ``fail`` calls of ``log_rounds``, or hangs in ``begin``."""

    def __init__(self, fail: int = 0, hang: bool = False) -> None:
        self.fail = fail
        self.begun = threading.Event()
        self.release = threading.Event()
        self.hang = hang
        self.points: list[int] = []
        self.ended: list[tuple[str, dict[str, float]]] = []
        self.threads: set[str] = set()
        self.searches: list[dict[str, Any]] = []

    def begin(self) -> None:
        self.threads.add(threading.current_thread().name)
        self.begun.set()
        if self.hang:
            self.release.wait(30)

    def log_search(self, record: dict[str, Any]) -> None:
        self.searches.append(record)

    def log_rounds(self, rounds: dict[int, dict[str, float]]) -> None:
        if self.fail:
            self.fail -= 1
            raise ConnectionError("http://user:secret@host: refused")
        self.points += sorted(rounds)

    def end(self, ending: str, totals: dict[str, float]) -> None:
        self.ended.append((ending, totals))


def test_a_search_is_sent_once_whatever_fails_before_it():
    server, warnings = Server(fail=1), []
    ended = outcome()
    ended.search = {"pools": []}
    with ThreadedTracker(server, warn=warnings.append) as tracker:
        tracker.round_finished(state(0), [estimate()])
        deadline = time.monotonic() + 20
        while not warnings and time.monotonic() < deadline:
            time.sleep(0.01)
        tracker.finished(ended)
    assert server.points == [0] and server.searches == [{"pools": []}]
    assert server.ended[0][0] == "FINISHED" and len(warnings) == 1


def test_all_rounds_in_order_and_the_end():
    server, warnings = Server(), []
    with ThreadedTracker(server, warn=warnings.append) as tracker:
        for r in range(5):
            tracker.round_finished(state(r), [estimate()])
        tracker.finished(outcome())
    assert server.points == [0, 1, 2, 3, 4]
    assert server.ended == [("FINISHED", {"total/draws": 20.0, "total/mean_weight.value": 1.01})]
    assert warnings == []
    assert server.threads == {"tailrisk-tracking"}


def test_server_that_comes_back_gets_every_round_once():
    server, warnings = Server(fail=2), []
    with ThreadedTracker(server, warn=warnings.append) as tracker:
        for r in range(5):
            tracker.round_finished(state(r), [estimate()])
            time.sleep(0.05)
    assert server.points == [0, 1, 2, 3, 4]
    assert len(warnings) == 1
    assert "refused" in warnings[0] and "secret" not in warnings[0]


@pytest.mark.parametrize(("error", "ending"), [(ValueError, "FAILED"), (KeyboardInterrupt, "KILLED")])
def test_how_the_block_was_left(error, ending):
    server = Server()
    with pytest.raises(error), ThreadedTracker(server, warn=print):
        raise error
    assert [e for e, _ in server.ended] == [ending]


def test_hung_server_and_full_queue_hold_nobody_up():
    server, warnings = Server(hang=True), []
    began = time.monotonic()
    with ThreadedTracker(server, warn=warnings.append, size=3, flush_s=0.3) as tracker:
        assert server.begun.wait(5)
        entered = time.monotonic()
        for r in range(50):
            tracker.round_finished(state(r), [estimate()])
        assert time.monotonic() - entered < 0.5
    assert time.monotonic() - began < 5
    assert len(warnings) == 1
    server.release.set()
