"""How many workers a pool asks for and which it lets go: rules without Ray, under a clock that is set by hand."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from tailrisk.cluster.sizing import CALL_OFF_AFTER_S, GROW_AFTER_S, Sizing
from tailrisk.config import PoolConfig


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Fake(NamedTuple):
    name: str
    pending: bool = False
    idle_s: float | None = None
    node: str = ""


def sizing(low: int, high: int, idle_s: float = 60.0) -> tuple[Sizing, Clock]:
    clock = Clock()
    return Sizing(PoolConfig(min=low, max=high, idle_s=idle_s), clock), clock


@pytest.mark.parametrize(
    ("tasks", "wanted"), [(0, 1), (1, 1), (2, 1), (3, 2), (4, 2), (5, 3), (6, 3), (7, 4), (99, 4)]
)
def test_as_many_as_the_work_keeps_busy(tasks, wanted):
    assert sizing(1, 4)[0].wanted(tasks) == wanted


def test_none_where_none_need_be_and_one_for_one_task():
    assert sizing(0, 2)[0].wanted(0) == 0
    assert sizing(0, 2)[0].wanted(1) == 1


def test_min_is_asked_for_at_once_and_all_that_the_work_needs_after_a_moment():
    rule, clock = sizing(2, 8)
    assert rule.short(0, 0) == 2
    assert rule.short(17, 2) == 0
    clock.now += GROW_AFTER_S
    assert rule.short(17, 2) == 6, "not one by one"
    assert rule.short(17, 8) == 0


def test_work_that_is_gone_in_a_moment_brings_no_node():
    rule, clock = sizing(1, 8)
    for _ in range(5):
        assert rule.short(5, 1) == 0
        clock.now += GROW_AFTER_S / 2
        assert rule.short(2, 1) == 0
        clock.now += GROW_AFTER_S / 2


def test_what_pends_without_need_is_called_off_the_newest_first():
    rule, clock = sizing(1, 8)
    workers = [Fake("a", node="1"), Fake("b", pending=True), Fake("c", pending=True)]
    assert rule.surplus(6, workers) == []
    assert rule.surplus(3, workers) == []
    clock.now += CALL_OFF_AFTER_S
    assert [w.name for w in rule.surplus(3, workers)] == ["c"]
    assert rule.surplus(6, workers) == []
    assert rule.surplus(3, workers) == [], "the need came back in between"


def test_idle_ones_go_so_that_nodes_are_empty_and_those_of_min_stay():
    rule, _ = sizing(2, 8, idle_s=10)
    workers = [
        Fake("busy", node="1"),
        Fake("beside", idle_s=11, node="1"),
        Fake("young", idle_s=9, node="2"),
        Fake("loading", node="4"),
        Fake("single", idle_s=11, node="3"),
    ]
    assert [w.name for w in rule.surplus(1, workers)] == ["single", "beside"]
    assert [w.name for w in rule.surplus(1, workers[:3])] == ["beside"]
    assert rule.surplus(1, workers[:2]) == []
