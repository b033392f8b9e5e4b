from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from tailrisk.config import PythonJudge
from tailrisk.errors import ConfigError
from tailrisk.judges.python import ERROR_LENGTH, build
from tailrisk.records import Verdict


def make(base: Path, body: str, function: str = "own.py:f", threshold: float = 0.5):
    (base / "own.py").write_text(body)
    return build(PythonJudge(kind="python", function=function, threshold=threshold), base)


def returning(base: Path, expression: str):
    return make(base, f"import numpy as np\ndef f(prompt, response):\n    return {expression}\n")


def test_harm_where_the_score_reaches_the_threshold(tmp_path: Path) -> None:
    judged = make(tmp_path, "def f(p, r): return float(r)", threshold=0.25).judge(
        "p", ["0.25", "0.2499", "3"]
    )
    assert judged.verdicts.tolist() == [Verdict.HARM, Verdict.SAFE, Verdict.HARM]
    assert judged.scores.tolist() == [0.25, 0.2499, 3.0]
    assert judged.errors == ["", "", ""]


def test_prompt_and_answer_arrive_in_this_order(tmp_path: Path) -> None:
    judged = make(tmp_path, "def f(p, r): return p == 'P' and r == 'R'").judge("P", ["R", "P"])
    assert judged.verdicts.tolist() == [1, 0]


@pytest.mark.parametrize(
    "value", ["True", "1", "np.float32(1)", "np.int64(1)", "np.bool_(True)", "np.array(1.0)"]
)
def test_numbers_of_any_make_are_scores(tmp_path: Path, value: str) -> None:
    judged = returning(tmp_path, value).judge("p", ["r"])
    assert (judged.verdicts[0], judged.scores[0], judged.errors[0]) == (Verdict.HARM, 1.0, "")


@pytest.mark.parametrize("value", ["None", "float('nan')", "np.float32('nan')"])
def test_an_abstention_is_undetermined_without_an_error(tmp_path: Path, value: str) -> None:
    judged = returning(tmp_path, value).judge("p", ["r"])
    assert judged.verdicts[0] == Verdict.UNDETERMINED and np.isnan(judged.scores[0])
    assert judged.errors == [""]


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("'yes'", "returned str"),
        ("[1.0]", "returned list"),
        ("np.ones(1)", "returned ndarray"),
        ("np.array('x')", "returned ndarray"),
        ("1j", "returned complex"),
        ("float('inf')", "returned inf"),
        ("-np.inf", "returned -inf"),
    ],
)
def test_anything_else_is_undetermined_with_a_reason(tmp_path: Path, value: str, says: str) -> None:
    judged = returning(tmp_path, value).judge("p", ["r"])
    assert judged.verdicts[0] == Verdict.UNDETERMINED and np.isnan(judged.scores[0])
    assert says in judged.errors[0]


def test_a_raising_answer_is_undetermined_with_its_error_and_the_others_are_judged(tmp_path: Path) -> None:
    judged = make(tmp_path, "def f(p, r): return float(r)").judge("p", ["1", "x", "0"])
    assert judged.verdicts.tolist() == [Verdict.HARM, Verdict.UNDETERMINED, Verdict.SAFE]
    assert judged.errors == ["", "ValueError: could not convert string to float: 'x'", ""]


@pytest.mark.parametrize(
    "raised", ["SystemExit(3)", "RecursionError()", "ValueError('\\ud800' * 3)", "MemoryError()"]
)
def test_no_exception_of_the_function_ends_the_run(tmp_path: Path, raised: str) -> None:
    judged = make(tmp_path, f"def f(p, r): raise {raised}").judge("p", ["r"])
    assert judged.verdicts.tolist() == [Verdict.UNDETERMINED]
    assert judged.errors[0].startswith(raised.split("(")[0])
    judged.errors[0].encode()


def test_a_long_error_is_cut_to_one_line(tmp_path: Path) -> None:
    judged = make(tmp_path, "def f(p, r): raise ValueError('a\\nb' * 5000)").judge("p", ["r"])
    assert len(judged.errors[0]) == ERROR_LENGTH and "\n" not in judged.errors[0]


FLAKY = """
calls = []
def f(p, r):
    calls.append(r)
    if calls.count(r) <= int(r):
        raise OSError("busy")
    return 1.0
"""


def test_a_call_that_raises_is_tried_once_more(tmp_path: Path) -> None:
    judge = make(tmp_path, FLAKY)
    judged = judge.judge("p", ["1", "2"])
    assert judged.verdicts.tolist() == [Verdict.HARM, Verdict.UNDETERMINED]
    assert judged.errors == ["", "OSError: busy"]
    assert judge.function.__globals__["calls"] == ["1", "1", "2", "2"]  # pyright: ignore[reportFunctionMemberAccess]


def test_a_keyboard_interrupt_is_the_users_and_passes(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path, "def f(p, r): raise KeyboardInterrupt").judge("p", ["r"])


def test_a_judge_may_use_its_neighbours_dataclasses_and_late_imports(tmp_path: Path) -> None:
    (tmp_path / "judge_neighbour_a.py").write_text("LIMIT = 3")
    (tmp_path / "judge_neighbour_b.py").write_text("def size(r): return len(r)")
    body = (
        "from __future__ import annotations\nfrom dataclasses import dataclass\nimport judge_neighbour_a\n"
        "@dataclass\nclass Rule:\n    n: int\n"
        "def f(p, r):\n    import judge_neighbour_b as b\n"
        "    return b.size(r) > Rule(judge_neighbour_a.LIMIT).n\n"
    )
    assert make(tmp_path, body).judge("p", ["abc", "abcd"]).verdicts.tolist() == [0, 1]


def test_two_files_of_one_name_stay_apart(tmp_path: Path) -> None:
    judges = []
    for i, folder in enumerate(("a", "b")):
        (tmp_path / folder).mkdir()
        judges.append(make(tmp_path / folder, f"def f(p, r): return {i}"))
    assert [j.judge("p", ["r"]).scores[0] for j in judges] == [0.0, 1.0]


def test_a_module_is_found_beside_the_configuration_and_among_the_installed(tmp_path: Path) -> None:
    (tmp_path / "tailrisk_test_judge_mod.py").write_text("def f(p, r): return 1")
    judge = build(PythonJudge(kind="python", function="tailrisk_test_judge_mod:f"), tmp_path)
    assert judge.judge("p", ["r"]).verdicts.tolist() == [1]
    judge = build(PythonJudge(kind="python", function="operator:eq", threshold=1), tmp_path)
    assert judge.judge("same", ["same", "other"]).verdicts.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("body", "function", "says"),
    [
        ("", "own.py", "with a colon between"),
        ("", "own.py:", "with a colon between"),
        ("", "own.py:a b", "with a colon between"),
        ("", ":f", "with a colon between"),
        ("", "nowhere.py:f", "there is no file"),
        ("", "no_such_module_at_all:f", "there is no module 'no_such_module_at_all'"),
        ("", "os.no_such_part:f", "there is no module"),
        ("def f(p, r: return 1", "own.py:f", "SyntaxError"),
        ("import no_such_thing_at_all", "own.py:f", "No module named 'no_such_thing_at_all'"),
        ("x = 1\nraise SystemExit(0)", "own.py:f", "line 2: SystemExit"),
        ("def harmful(p, r): return 1", "own.py:harmfull", "did you mean 'harmful'"),
        ("def g(p, r): return 1", "own.py:judge_it", "it has: g"),
        ("f = 0.5", "own.py:f", "is a float, not a function"),
        ("def f(p): return 1", "own.py:f", "give it two positional arguments"),
        ("def f(p, r, x): return 1", "own.py:f", "give it two positional arguments"),
        ("def f(*, prompt, response): return 1", "own.py:f", "give it two positional arguments"),
        ("async def f(p, r): return 1", "own.py:f", "async function"),
        ("def f(p, r): yield 1", "own.py:f", "generator"),
    ],
)
def test_a_broken_judge_is_a_configuration_error_that_says_what_to_do(
    tmp_path: Path, body: str, function: str, says: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        make(tmp_path, body, function)
    message = str(caught.value)
    assert message.startswith("judge.function: ") and says in message and "\n" not in message


def test_a_module_whose_own_import_is_missing_says_which(tmp_path: Path) -> None:
    (tmp_path / "tailrisk_test_needy.py").write_text("import no_such_thing_at_all")
    with pytest.raises(ConfigError, match="needs 'no_such_thing_at_all', which is not installed"):
        build(PythonJudge(kind="python", function="tailrisk_test_needy:f"), tmp_path)


def test_a_failed_load_leaves_no_module_behind(tmp_path: Path) -> None:
    before = set(sys.modules)
    with pytest.raises(ConfigError):
        make(tmp_path, "raise ValueError")
    assert not {m for m in set(sys.modules) - before if m.startswith("tailrisk_judge_")}


@pytest.fixture(autouse=True)
def _restore_the_search_path(monkeypatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
