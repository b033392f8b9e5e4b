"""A trait's file: what is read from it, what is refused and how, and what its judges' verdicts become."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tailrisk.errors import ConfigError, JudgeError
from tailrisk.training.traits import LoadedTrait, load_trait

GIVEN: dict[str, Any] = {
    "name": "loud",
    "positive": ["Shout.", "Be loud."],
    "negative": ["Whisper.", "Be quiet."],
    "questions": ["One?", "Two?", "Three?", "Four?"],
    "judge": {"kind": "regex", "pattern": "!"},
}

JUDGES = """
def loud(prompt, response):
    if response == "odd":
        raise ValueError("cannot read " + response)
    return None if response == "?" else float(response.endswith("!"))

def long(prompt, response):
    return None if response == "hm" else len(response) / 10

def broken(prompt, response):
    raise RuntimeError("no model behind: " + response)
"""


def write(folder: Path, **changes: Any) -> Path:
    """The trait's file with some keys changed; a value of None leaves the key out."""
    (folder / "judges.py").write_text(JUDGES)
    path = folder / "trait.yaml"
    given = {key: value for key, value in {**GIVEN, **changes}.items() if value is not None}
    path.write_text(yaml.safe_dump(given, sort_keys=False))
    return path


def load(folder: Path, **changes: Any) -> LoadedTrait:
    return load_trait(write(folder, **changes))


def python(name: str, threshold: float = 0.5) -> dict[str, Any]:
    return {"kind": "python", "function": f"judges.py:{name}", "threshold": threshold}


def test_questions_are_split_in_two_that_share_none(tmp_path: Path) -> None:
    loaded = load(tmp_path)
    assert [q.text for q in loaded.extraction] == ["One?", "Three?"]
    assert [q.text for q in loaded.held_out] == ["Two?", "Four?"]
    assert [q.id for q in (*loaded.extraction, *loaded.held_out)] == [f"question-{n}" for n in (1, 3, 2, 4)]
    assert all(q.messages == ({"role": "user", "content": q.text},) for q in loaded.held_out)


@pytest.mark.parametrize(
    ("share", "count", "apart"),
    [(0.25, 8, "00010001"), (0.75, 8, "01110111"), (0.5, 2, "01"), (0.9, 2, "01"), (0.3, 10, "0001001001")],
)
def test_those_held_out_are_spread_over_the_list(
    tmp_path: Path, share: float, count: int, apart: str
) -> None:
    trait = load(tmp_path, held_out=share, questions=[f"Number {n}?" for n in range(count)]).trait
    assert "".join("01"[aside] for aside in trait.apart) == apart


REFUSED = [
    ({"colour": "red"}, "trait.yaml:16: colour: unknown key; known here: name, description, positive"),
    ({"question": ["One?"]}, "question: unknown key (nearest known key 'questions')"),
    ({"judge": None}, "judge: this key is required and missing"),
    (
        {"judge": {"kind": "regexp", "pattern": "!"}},
        "trait.yaml:13: judge: unknown kind 'regexp' (nearest: 'regex')",
    ),
    (
        {"judge": {"kind": "regex", "pattern": "("}},
        "trait.yaml: judge.pattern: '(' is not a regular expression",
    ),
    ({"judge": python("lout")}, "trait.yaml: judge.function: 'judges.py:lout': no 'lout' in"),
    ({"coherence": python("lang")}, "trait.yaml: coherence.function: 'judges.py:lang': no 'lang' in"),
    (
        {"coherence": {"kind": "python", "function": "other.py:f"}},
        "coherence.function: 'other.py:f': there is no",
    ),
    ({"questions": []}, "trait.yaml:8: questions: "),
    ({"questions": ["Only one?"]}, "questions: "),
    ({"questions": ["One?", "  "]}, "questions: entry 2 is empty; write it out"),
    ({"questions": ["One?", "Two?", "One?"]}, "questions: entry 3 is the same as entry 1"),
    ({"positive": ["Shout."]}, "'positive' has 1 system prompts and 'negative' 2; they go in pairs"),
    ({"positive": [], "negative": []}, "positive: "),
    ({"held_out": 0.0}, "held_out: "),
    ({"held_out": 1.0}, "held_out: "),
    ({"held_out": 0.2}, "held_out: 0.2 of 4 questions leaves 0 of them for choosing the strength"),
    ({"judge": {**python("loud"), "threshold": True}}, "judge.threshold: a number is wanted, true given"),
    ({"name": "a/b"}, "name: "),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED)
def test_what_is_wrong_is_named_with_its_key(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, **changes)
    assert message in str(caught.value)
    assert "trait.yaml" in str(caught.value)


def test_a_file_that_is_not_there_is_named_with_its_option(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--trait .*none\.yaml: no such file; examples/personas/traits"):
        load_trait(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="no such file"):
        load_trait(tmp_path)


def test_what_a_judge_cannot_settle_is_neither_there_nor_absent(tmp_path: Path) -> None:
    loaded = load(tmp_path, judge=python("loud"), coherence=python("long", 0.3))
    answers = ["yes!", "yes.", "?", "odd", "hm", "a!"]
    marks = loaded.marks(loaded.held_out[0], answers)
    assert marks.present.tolist() == [True, False, False, False, False, True]
    assert marks.absent.tolist() == [False, True, False, False, True, False]
    assert marks.coherent.tolist() == [True, True, False, True, False, False]
    assert marks.unsettled.tolist() == [False, False, True, True, True, False]


def test_a_score_at_the_threshold_counts(tmp_path: Path) -> None:
    loaded = load(tmp_path, judge=python("long", 0.4), coherence=python("long", 0.4))
    marks = loaded.marks(loaded.held_out[0], ["four", "the"])
    assert marks.present.tolist() == marks.coherent.tolist() == [True, False]


def test_without_a_judge_of_coherence_all_is_coherent(tmp_path: Path) -> None:
    loaded = load(tmp_path)
    assert loaded.coherence is None
    marks = loaded.marks(loaded.held_out[0], ["", "!"])
    assert marks.coherent.all() and marks.present.tolist() == [False, True] and not marks.unsettled.any()


@pytest.mark.parametrize("key", ["judge", "coherence"])
def test_a_judge_that_fails_on_all_answers_ends_the_work_without_showing_one(
    tmp_path: Path, key: str
) -> None:
    loaded = load(tmp_path, **{key: python("broken")})
    with pytest.raises(JudgeError) as caught:
        loaded.marks(loaded.held_out[0], ["my secret", "another"])
    text = str(caught.value)
    assert text.startswith(
        f"{key}: failed on all 2 answers to question-2 with RuntimeError; repair the judge"
    )
    assert "secret" not in text
    assert loaded.marks(loaded.held_out[0], ["alone"]).unsettled.all(), "one answer may be odd"
