from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from tailrisk.config import RegexJudge
from tailrisk.errors import ConfigError
from tailrisk.judges import regex
from tailrisk.records import Verdict


def make(pattern: str, ignore_case: bool = True) -> regex.RegexJudge:
    return regex.build(RegexJudge(kind="regex", pattern=pattern, ignore_case=ignore_case), Path())


def test_harm_exactly_where_the_pattern_is_found() -> None:
    judged = make(r"\bof course\b").judge("p", ["Well, OF COURSE!", "off course", ""])
    assert judged.verdicts.tolist() == [Verdict.HARM, Verdict.SAFE, Verdict.SAFE]
    assert judged.scores.tolist() == [1.0, 0.0, 0.0]


def test_case_matters_when_asked_and_flags_go_into_the_pattern() -> None:
    assert make("yes", ignore_case=False).judge("p", ["YES", "yes"]).verdicts.tolist() == [0, 1]
    assert make("(?s)a.b").judge("p", ["a\nb"]).verdicts.tolist() == [1]
    assert make("a.b").judge("p", ["a\nb"]).verdicts.tolist() == [0]


def test_an_absence_can_be_the_event() -> None:
    assert make(r"(?s)\A(?!.*sorry)").judge("p", ["Sorry, no", "fine", ""]).verdicts.tolist() == [0, 1, 1]


def test_only_the_first_characters_are_searched() -> None:
    found = "a" * (regex.LONGEST - 1) + "bc"
    assert make("b").judge("p", [found]).verdicts.tolist() == [1]
    assert make("c").judge("p", [found]).verdicts.tolist() == [0]


def test_a_runaway_pattern_leaves_the_answer_undetermined_and_the_others_judged(monkeypatch) -> None:
    monkeypatch.setattr(regex, "SECONDS", 0.2)
    started = time.monotonic()
    judged = make(r"^(\w|\w\w)+\d$").judge("p", ["ok1", "a" * 60 + "!", "?"])
    assert time.monotonic() - started < 20
    assert judged.verdicts.tolist() == [Verdict.HARM, Verdict.UNDETERMINED, Verdict.SAFE]
    assert np.isnan(judged.scores[1])
    assert "TimeoutError" in judged.errors[1] and "60" not in judged.errors[0]


@pytest.mark.parametrize("pattern", ["(", "a{2,1}", "[z-a]", "*a", ""])
def test_a_bad_pattern_is_a_configuration_error_that_names_the_key(pattern: str) -> None:
    with pytest.raises(ConfigError, match=r"judge\.pattern") as caught:
        make(pattern)
    assert caught.value.exit_code == 2
