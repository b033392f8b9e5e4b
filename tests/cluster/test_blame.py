"""Suspects of a pool: tried alone, cleared or given up, and the point where the workers are at fault."""

from __future__ import annotations

from collections import deque

import pytest

from tailrisk.cluster.blame import GIVEN_UP_IN_A_ROW, Suspects
from tailrisk.cluster.journal import Journal
from tailrisk.cluster.tasks import Blame, Task
from tailrisk.errors import ClusterError


def task(subject: str, number: int = 0) -> Task:
    return Task(f"{subject}/0/{number}", "run", (), subject)


def suspects(retries: int = 2, *, by_subject: bool = False) -> tuple[Suspects, Blame, Journal]:
    blame, journal = Blame(retries, by_subject=by_subject), Journal("models")
    return Suspects("models", blame, journal), blame, journal


def test_all_that_were_in_flight_wait_to_be_tried_alone_in_their_order():
    one, _, journal = suspects()
    tasks = [task("p"), task("q"), task("r")]
    assert one.accuse(tasks[:2], "ended", certain=False) == []
    assert one.accuse(tasks[2:], "ended", certain=True) == []
    assert len(one) == 3 and all(t.alone for t in tasks)
    assert [one.popleft() for _ in tasks] == tasks and len(one) == 0
    assert journal.retries == 0, "cut short is told when the worker goes; only a giving up takes it back"


def test_a_second_death_alone_gives_up_and_tells_why():
    one, _, journal = suspects()
    first, other = task("p"), task("q")
    one.accuse([first], "ended", certain=True)
    (outcome,) = one.accuse([one.popleft(), other], "ended", certain=True)
    assert (outcome.task, outcome.value, outcome.worker) == (first, None, "")
    assert outcome.reason == "killed its worker 2 times (ended)"
    assert journal.retries == -1 and one.popleft() is other


def test_the_guilty_are_taken_out_of_both_queues():
    one, _, _ = suspects(retries=1, by_subject=True)
    tasks = [task("p", 0), task("p", 1), task("p", 2), task("q")]
    waiting = deque(tasks[2:])
    assert one.accuse(tasks[:2], "ended", certain=False) == []
    assert one.hopeless(waiting) == [] and len(waiting) == 2
    (given_up,) = one.accuse([one.popleft()], "ended", certain=True)
    assert given_up.task is tasks[0]
    gone = one.hopeless(waiting)
    assert [o.task for o in gone] == [tasks[2], tasks[1]]
    assert {o.reason for o in gone} == {"not tried: batch p/0/0 killed its worker 2 times (ended)"}
    assert list(waiting) == [tasks[3]] and len(one) == 0


def test_many_in_a_row_are_the_workers_fault_unless_one_was_finished_in_between():
    one, blame, _ = suspects(retries=1)
    for i in range(GIVEN_UP_IN_A_ROW - 1):
        assert len(one.accuse([task(f"p{i}")], "ended", certain=True)) == 1
    blame.answered()
    for i in range(GIVEN_UP_IN_A_ROW - 1):
        assert len(one.accuse([task(f"q{i}")], "ended", certain=True)) == 1
    with pytest.raises(ClusterError, match=r"cluster\.models: 5 tasks in a row killed .*last: ended"):
        one.accuse([task("last")], "ended", certain=True)


def test_what_is_forgotten_does_not_come_back():
    one, _, _ = suspects()
    one.accuse([task("p")], "ended", certain=False)
    one.clear()
    assert len(one) == 0 and one.hopeless(deque()) == []
