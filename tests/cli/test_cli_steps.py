"""Progress in stages: lines for pipes, bars for terminals, nothing left behind."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from tailrisk.cli.steps import Steps


def shown(terminal: bool, *, fail: bool = False) -> str:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=100, highlight=False, no_color=True)
    try:
        with Steps(console) as steps:
            steps.stage("reading", 3)
            steps.step(2)
            steps.step()
            steps.stage("scoring", 5)
            steps.step()
            if fail:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert fail
    return out.getvalue()


def test_a_pipe_gets_a_line_when_a_stage_starts_and_ends() -> None:
    assert shown(False).splitlines() == [
        "reading: 3 to do",
        "reading: 3 of 3 in 0 s",
        "scoring: 5 to do",
        "scoring: 1 of 5 in 0 s",
    ]


def test_an_interrupted_stage_is_not_said_to_be_done() -> None:
    assert shown(False, fail=True).splitlines()[-1] == "scoring: 5 to do"


@pytest.mark.parametrize("fail", [False, True])
def test_a_terminal_gets_bars_and_its_cursor_back(fail: bool) -> None:
    text = shown(True, fail=fail)
    assert "reading: 3 of 3 in 0 s" in text
    assert text.rfind("\x1b[?25h") > text.rfind("\x1b[?25l"), "the cursor is shown again"


def test_quiet_shows_nothing() -> None:
    out = io.StringIO()
    with Steps(Console(file=out, force_terminal=True, quiet=True)) as steps:
        steps.stage("reading", 1)
        steps.step()
    assert out.getvalue() == ""
