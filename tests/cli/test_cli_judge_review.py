"""``tailrisk judge review``: out to people and back, and the estimate with their word beside the first."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import fakerun
import pytest
from typer.testing import CliRunner

from tailrisk.cli.app import app

pytestmark = pytest.mark.usefixtures("blank_reports")
CASES = (fakerun.Case("frequent", 0.05), fakerun.Case("rare", 1e-3))


def cli(*words: str):
    return CliRunner().invoke(app, [*words], catch_exceptions=False, env={"COLUMNS": "200"})


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return fakerun.make_run(tmp_path / "run", CASES)


def rows_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def label(path: Path, said) -> None:
    rows = rows_of(path)
    for row in rows:
        row["label"] = said(row)
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))


def judge_says(row) -> str:
    return "harm" if "harm" in row["answer"] else "safe"


def estimates(run: Path) -> tuple[dict, dict]:
    summary = json.loads((run / "estimates.json").read_text())
    both = summary["estimates"], summary["review"]["estimates"]
    before, after = ({e["prompt_id"]: e for e in some} for some in both)
    return before, after


@pytest.mark.page
def test_people_who_agree_leave_the_estimate_as_it_is(run: Path):
    done = cli("judge", "review", str(run), "--calls", "60")
    assert done.exit_code == 0, done.output
    rows = rows_of(run / "review.jsonl")
    assert 50 <= len(rows) <= 60 and len({r["key"] for r in rows}) == len(rows)
    assert all(0 < r["pi"] <= 1 and r["label"] == "" for r in rows)
    assert any("harm" not in r["answer"] for r in rows), "a few that were not flagged"
    assert max(r["pi"] for r in rows if "harm" in r["answer"]) > 5 * min(r["pi"] for r in rows)
    label(run / "review.jsonl", judge_says)
    done = cli("judge", "review", str(run), "--labels", str(run / "review.jsonl"))
    assert done.exit_code == 0 and f"{len(rows)} labels taken, 0 of {len(rows)}" in done.output, done.output
    before, after = estimates(run)
    for i in after:
        assert after[i]["estimate"] == pytest.approx(before[i]["estimate"], rel=1e-9)
        assert after[i]["certified"][1] == 1.0
    shown = cli("show", str(run))
    assert "after a review of" in shown.output and "after it" in shown.output
    assert "What did the review change?" in (run / "report.html").read_text()


def test_people_who_see_no_harm_bring_it_down(run: Path):
    cli("judge", "review", str(run), "--calls", "400")
    label(run / "review.jsonl", lambda row: "safe" if row["prompt_id"] == "frequent" else judge_says(row))
    assert cli("judge", "review", str(run), "--labels", str(run / "review.jsonl")).exit_code == 0
    before, after = estimates(run)
    assert after["frequent"]["estimate"] < 0.5 * before["frequent"]["estimate"]
    assert after["frequent"]["status"] not in ("ok", "budget-exhausted")


def test_missing_labels_are_undetermined_and_the_file_is_the_same_again(run: Path, tmp_path: Path):
    cli("judge", "review", str(run), "--calls", "30")
    first = (run / "review.jsonl").read_text()
    label(run / "review.jsonl", lambda row: "harm" if row["index"] == 1 else "")
    done = cli("judge", "review", str(run), "--labels", str(run / "review.jsonl"))
    assert "1 labels taken" in done.output
    _, after = estimates(run)
    assert sum(e["undetermined"] for e in after.values()) > 3
    again = cli("judge", "review", str(run), "--out", str(tmp_path / "again.csv"))
    assert again.exit_code == 0
    with (tmp_path / "again.csv").open() as file:
        assert [r["key"] for r in csv.DictReader(file)] == [json.loads(x)["key"] for x in first.splitlines()]


def test_bad_files_are_refused_by_line_and_nothing_is_taken(run: Path):
    assert "were given out" in cli("judge", "review", str(run), "--labels", "x.jsonl").output
    cli("judge", "review", str(run), "--calls", "30")
    path = run / "review.jsonl"
    rows = rows_of(path)
    rows[0]["label"], rows[1]["key"], rows[2]["label"] = "perhaps", "nobody/0/0#1", "harm"
    rows.append(rows[2])
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    done = cli("judge", "review", str(run), "--labels", str(path))
    assert done.exit_code != 0
    for words in (":1: label 'perhaps'", ":2: key 'nobody/0/0#1'", f":{len(rows)}: key", "first at line 3"):
        assert words in done.output
    assert "review" not in json.loads((run / "estimates.json").read_text())
    path.write_text("{not json}\n")
    assert ":1: not JSON" in cli("judge", "review", str(run), "--labels", str(path)).output
