"""``tailrisk judge check``: from a file of labels to a table, a check.json, and an audit that rests on it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fakerun import CASES, workers, write_config

from tailrisk.cli import run, wiring
from tailrisk.store.checkfile import NAME, load_check

SECRET = "words-not-to-be-shown"


def labels(folder: Path, harm: int = 40, missed: int = 4, safe: int = 60, wrong: int = 3) -> Path:
    """A word judge misses some harmful answers and flags some safe ones."""
    rows = [{"prompt": f"p{i % 7}", "response": f"{'harm' if i >= missed else 'bad'} {SECRET} {i}", "label": "harm"}
            for i in range(harm)]  # fmt: skip
    rows += [{"prompt": f"p{i % 7}", "response": f"{'harm' if i < wrong else 'fine'} {i}", "label": "safe"}
             for i in range(safe)]  # fmt: skip
    path = folder / "labels.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


@pytest.fixture
def judge(tmp_path) -> Path:
    path = tmp_path / "judge.yaml"
    path.write_text("judge: {kind: regex, pattern: harm}\n")
    return path


def test_the_table_and_the_file(judge, tmp_path, capfd):
    out = tmp_path / "new" / "check.json"
    assert run(["judge", "check", str(judge), str(labels(tmp_path)), "--out", str(out)]) == 0
    shown, err = capfd.readouterr()
    assert "100 labelled answers: 40 harm, 60 safe" in shown
    assert "0.9000" in shown and "0.9500" in shown, "36 of 40, 57 of 60"
    assert "smallest probability that this judge resolves" in shown and "more than half" in shown
    assert SECRET not in shown + err + out.read_text()
    check = load_check(out)
    assert check.counts == (36, 4, 0, 3, 57, 0)
    content = check.content
    assert content["rates"]["sensitivity"]["value"] == 0.9
    assert content["labels"]["sha256"] and content["judge"]["settings"]["pattern"] == "harm"
    assert sum(content["scores"]["harm"]) == 40 and len(content["thresholds"]) == 2


def test_json_is_the_file(judge, tmp_path, capfd):
    out = tmp_path / "check.json"
    assert run(["judge", "check", str(judge), str(labels(tmp_path)), "--json", "--out", str(out)]) == 0
    assert json.loads(capfd.readouterr().out) == json.loads(out.read_text())


def test_the_judge_of_an_audit_is_checked_with_its_changes(tmp_path, capfd):
    config = write_config(tmp_path / "audit", CASES[:1])
    args = ["judge", "check", str(config), str(labels(tmp_path)), "--json", "--set", "judge.pattern=fine"]
    assert run(args) == 0
    assert json.loads(capfd.readouterr().out)["counts"]["safe"]["harm"] == 57


def test_undetermined_answers_are_counted_apart_and_both_ways(tmp_path, capfd):
    (tmp_path / "j.py").write_text(
        "def score(prompt, response):\n    return None if 'p0' in prompt else float('harm' in response)\n"
    )
    path = tmp_path / "judge.yaml"
    path.write_text("judge: {kind: python, function: 'j.py:score'}\n")
    assert run(["judge", "check", str(path), str(labels(tmp_path))]) == 0
    shown = capfd.readouterr().out
    assert "15 undetermined (0 because the judge failed)" in shown
    assert "taken as safe: sensitivity" in shown and "taken as harm: sensitivity" in shown


def test_a_judge_that_fails_on_most_says_nothing(tmp_path, capfd):
    (tmp_path / "j.py").write_text("def score(prompt, response):\n    raise RuntimeError('out of order')\n")
    path = tmp_path / "judge.yaml"
    path.write_text("judge: {kind: python, function: 'j.py:score'}\n")
    assert run(["judge", "check", str(path), str(labels(tmp_path))]) == 1
    assert "failed on 100 of 100 labelled answers" in capfd.readouterr().err


def refused(capfd, args: list[str]) -> str:
    assert run(["judge", "check", *args]) == 2
    out, err = capfd.readouterr()
    assert out == "" and err.startswith("error: ") and "Traceback" not in err and SECRET not in err
    return err


def test_judges_that_are_none(judge, tmp_path, capfd):
    path = tmp_path / "x.yaml"
    path.write_text("kind: regex\npattern: harm\n")
    assert "belong under the key 'judge'" in refused(capfd, [str(path), str(labels(tmp_path))])
    path.write_text("judge: {kind: rejex, pattern: harm}\n")
    assert "nearest: 'regex'" in refused(capfd, [str(path), str(labels(tmp_path))])
    path.write_text("judge: {kind: regex, pattern: '('}\n")
    assert "not a regular expression" in refused(capfd, [str(path), str(labels(tmp_path))])
    assert "no such file" in refused(capfd, [str(tmp_path / "none.yaml"), str(labels(tmp_path))])


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", b"", "no labelled answers"),
        ("a.jsonl", b"\n\n", "no labelled answers"),
        ("a.jsonl", b'{"prompt": "p", "response": "r"}\n', "no column of labels"),
        ("a.jsonl", b'{"prompt": "p", "label": 1}\n', "no column of responses"),
        ("a.jsonl", b'{"prompt": "p", "response": "r", "label": 3}\n', "a.jsonl:1: 'label' is a number"),
        ("a.jsonl", b'{"prompt": "p", "response": "r", "label": "maybe"}\n', "a.jsonl:1: 'label' is none of"),
        ("a.jsonl", b'{"prompt": "p", "response": 4, "label": 1}\n', "'response' is not a text"),
        (
            "a.jsonl",
            b'{"prompt": "p", "response": "r", "label": null}\n{"prompt": 1}\n',
            "a.jsonl:2: 'prompt'",
        ),
        ("a.jsonl", b'{"prompt": "p", "response": "\\ud800", "label": 1}\n', "surrogate"),
        ("a.jsonl", b'{"prompt": "p", "response": "' + b"x" * 1_000_001 + b'", "label": 1}\n', "longer than"),
        ("a.jsonl", b"[1]\n", "not an object"),
        ("a.csv", b"prompt,response,label\np,r\n", "2 cells, the header has 3"),
        ("a.csv", b"\xff\xfep\x00r\x00", "UTF-16"),
        ("a.parquet", b"PAR1 nonsense", "cannot be read as parquet"),
        ("a.txt", b"p r 1", "unknown suffix"),
    ],
    ids=str,
)
def test_hostile_labels_are_one_message(judge, tmp_path, capfd, name, content, said):
    path = tmp_path / name
    path.write_bytes(content)
    assert said in refused(capfd, [str(judge), str(path)])


def test_columns_marks_numbers_and_repetitions(judge, tmp_path, capfd):
    path = tmp_path / "scored.csv"
    rows = ["Objective,Assistant_Response,human_score_1"]
    rows += [f"q,harm {i},0.9" for i in range(5)] + [f"q,fine {i},0.25" for i in range(6)]
    rows += ["q,harm 0,1.0", "q,fine 0,0.8"]  # the same again, and the same with another label
    path.write_bytes("\ufeff".encode() + "\r\n".join(rows).encode())
    args = [str(judge), str(path), "--prompt", "objective", "--label", "human_score_1", "--threshold", "0.5"]
    assert run(["judge", "check", *args, "--json"]) == 0
    content = json.loads(capfd.readouterr().out)
    assert content["counts"] == {"harm": {"harm": 5, "safe": 0, "undetermined": 0},
                                 "safe": {"harm": 0, "safe": 5, "undetermined": 0}}  # fmt: skip
    told = content["labels"]
    assert (told["rows"], told["duplicates"], told["contradictory"]) == (13, 1, 1)
    assert told["contradictory_lines"] == [[7, 14]]
    assert run(["judge", "check", *args]) == 0
    assert "1 answers have both labels and were left out: lines 7, 14" in capfd.readouterr().out
    assert "no column 'nope'" in refused(capfd, [*args[:2], "--label", "nope"])
    assert "say from where on it is harm" in refused(capfd, args[:-2])
    mixed = tmp_path / "mixed.csv"
    mixed.write_text("prompt,response,label\nq,a,0.3\nq,b,harm\n")
    assert "mixed.csv:3: 'label' is no number" in refused(
        capfd, [str(judge), str(mixed), "--threshold", "0.5"]
    )


def test_parquet_and_booleans(judge, tmp_path, capfd):
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = {
        "prompt": ["q"] * 4,
        "response": ["harm 1", "harm 2", "ok 1", ""],
        "label": [True, True, False, False],
    }
    pq.write_table(pa.table(table), tmp_path / "labels.parquet")
    assert run(["judge", "check", str(judge), str(tmp_path / "labels.parquet"), "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["rates"]["agreement"]["value"] == 1.0


# ---- the check in an audit


@pytest.fixture
def audit(tmp_path, monkeypatch, blank_reports):
    """Runs an audit of three prompts whose configuration names a check; ``labels`` as above."""
    monkeypatch.setattr(wiring, "check_models", lambda config, prompts: {"model.target": "0" * 64})
    monkeypatch.setattr(wiring, "on_ray", workers(CASES[:3], 0.0))
    config = write_config(tmp_path, CASES[:3])

    def go(*more: str, **counts: int) -> int:
        if counts:
            check = ["judge", "check", str(config), str(labels(tmp_path, **counts)), "--json"]
            assert run([*check, "--out", str(tmp_path / "check.json")]) == 0
        return run(["audit", str(config), *more])

    return go


def test_an_audit_that_names_a_check_has_corrected_numbers(audit, tmp_path, capfd):
    assert audit() == 0
    folder = tmp_path / "runs" / "run"
    plain = json.loads((folder / "estimates.json").read_text())["estimates"]
    draws = (folder / "draws.parquet").read_bytes()
    assert not any("corrected" in e for e in plain)
    # 400 safe answers without a false positive: 5 % is resolved, 1e-3 and 1e-5 are not
    assert audit("--set", "judge.check=check.json", harm=300, missed=30, safe=400, wrong=0) == 3
    summary = json.loads((folder / "estimates.json").read_text())
    by_id = {e["prompt_id"]: e for e in summary["estimates"]}
    assert 0.005 < summary["audit"]["judge_resolution"] < 0.02
    for before in plain:
        after = by_id[before["prompt_id"]]
        for key in set(before) - {"status", "reasons"}:
            assert after[key] == before[key], key
    assert draws == (folder / "draws.parquet").read_bytes(), "no draw was added"
    frequent, rare = by_id["frequent"], by_id["rare"]
    assert frequent["status"] == "ok" and frequent["corrected"]["resolved"]
    assert frequent["corrected"]["estimate"] == pytest.approx(frequent["estimate"] / 0.9, rel=1e-9)
    assert frequent["corrected"]["working"][0] < 0.05 / 0.9 < frequent["corrected"]["working"][1]
    assert rare["status"] == "bound-only" and rare["corrected"]["estimate"] is None
    assert rare["corrected"]["certified"][1] > rare["certified"][1]
    assert load_check(folder / NAME).counts == (270, 30, 0, 0, 400, 0)
    capfd.readouterr()
    assert run(["show", str(folder)]) == 0
    assert "rare: bound-only: under the judge's resolution" in capfd.readouterr().out
    # without the check in the configuration the numbers are as they were
    assert audit() == 0
    assert json.loads((folder / "estimates.json").read_text())["estimates"] == plain
    assert not (folder / NAME).exists()


def test_a_check_changes_no_plan(audit, tmp_path):
    """From the first draw on: the same log of plans and draws as without it."""
    assert audit("--set", "run.name=plain") == 0
    assert (
        audit(
            "--set",
            "judge.check=check.json",
            "--set",
            "run.name=checked",
            harm=10,
            missed=1,
            safe=10,
            wrong=1,
        )
        == 3
    )

    def logged(name: str) -> list[str]:
        lines = (tmp_path / "runs" / name / "log" / "00000.jsonl").read_text().splitlines()
        records = [json.loads(line[9:]) for line in lines]
        for record in records:
            record["payload"].pop("seconds", None)
        return [json.dumps(r) for r in records]

    assert logged("plain") == logged("checked")


def test_a_check_of_another_judge_is_refused(audit, tmp_path, capfd):
    assert audit("--set", "judge.check=check.json") == 2
    assert "judge.check" in (err := capfd.readouterr().err) and "no such file" in err
    assert (
        audit(
            "--set",
            "judge.check=check.json",
            "--set",
            "judge.pattern=other",
            harm=3,
            missed=1,
            safe=3,
            wrong=1,
        )
        == 2
    )
    assert "judge.check" in (err := capfd.readouterr().err) and "of another judge" in err
    content = json.loads((tmp_path / "check.json").read_text())
    for change, said in (
        ({"version": 9}, "version 9"),
        ({"format": "x"}, "was not written by"),
        ({"counts": {}}, "missing"),
    ):
        (tmp_path / "check.json").write_text(json.dumps({**content, **change}))
        assert audit("--set", "judge.check=check.json") == 2
        assert said in capfd.readouterr().err
    (tmp_path / "check.json").write_bytes(b"\xff\xfe")
    assert audit("--set", "judge.check=check.json") == 2
    assert "cannot be used" in capfd.readouterr().err


def test_the_file_of_a_python_judge_is_part_of_it_and_its_folder_is_not(tmp_path):
    from tailrisk.judgefile import load_judge
    from tailrisk.judges.identity import judge_digest

    def digest(folder: Path, text: str) -> str:
        folder.mkdir(exist_ok=True)
        (folder / "j.py").write_text(text)
        (folder / "judge.yaml").write_text("judge: {kind: python, function: 'j.py:f', check: c.json}\n")
        found = load_judge(folder / "judge.yaml")
        return judge_digest(found.spec, found.base)

    one = digest(tmp_path / "a", "def f(p, r): return 0.0\n")
    assert digest(tmp_path / "b", "def f(p, r): return 0.0\n") == one
    assert digest(tmp_path / "b", "def f(p, r): return 1.0\n") != one
