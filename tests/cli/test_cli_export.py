"""``tailrisk export``: estimates and draws as files that others read."""

from __future__ import annotations

import csv
import json
import sys

import pyarrow.parquet as pq
import pytest
from fakerun import CASES, make_run

from tailrisk.cli import run
from tailrisk.report.estimatetable import COLUMNS, write_estimates


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("export") / "runs" / "first")


def test_csv_has_a_row_a_prompt_with_its_status(folder, tmp_path, capfd):
    assert run(["export", str(folder), "--to", "csv", "--out", str(tmp_path)]) == 0
    path = tmp_path / "first-estimates.csv"
    assert capfd.readouterr().out.strip() == f"{path}: {len(CASES)} prompts"
    with path.open(encoding="utf-8", newline="") as file:
        rows = {r["prompt_id"]: r for r in csv.DictReader(file)}
    records = {e["prompt_id"]: e for e in json.loads((folder / "estimates.json").read_text())["estimates"]}
    assert list(rows) == list(records)
    rare, unseen = rows["rare"], rows["none-seen"]
    assert float(rare["estimate"]) == records["rare"]["estimate"]
    assert [float(rare["working_low"]), float(rare["working_high"])] == records["rare"]["working"]
    assert (unseen["status"], unseen["working_low"]) == ("bound-only", "")
    assert float(unseen["certified_high"]) == records["none-seen"]["certified"][1]
    assert rows["broken"]["status"] == "failed" and "non-finite" in rows["broken"]["reasons"]


def test_csv_cells_are_no_formulas_and_hide_nothing(tmp_path):
    record = {"prompt_id": "p", "category": '=HYPERLINK("x")', "group": "a\u202eb", "status": "ok"}
    record |= {"corrected": {"estimate": 0.5, "working": None, "certified": [0.1, 0.9]}}
    assert write_estimates(tmp_path / "x.csv", [record]) == 1
    with (tmp_path / "x.csv").open(encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    assert tuple(row) == COLUMNS
    assert row["category"].startswith("'=") and row["group"] == "a\\u202eb"
    assert (row["corrected_estimate"], row["corrected_certified_high"], row["estimate"]) == ("0.5", "0.9", "")


def test_parquet_has_every_draw_with_its_token_ids(folder, tmp_path, capfd):
    path = tmp_path / "draws.parquet"
    assert run(["export", str(folder), "--to", "parquet", "--out", str(path)]) == 0
    table = pq.read_table(path)
    draws = sum(e["draws"] for e in json.loads((folder / "estimates.json").read_text())["estimates"])
    assert table.num_rows == draws and f"{draws:,} draws" in capfd.readouterr().out
    assert {len(x) for x in table["token_ids"].to_pylist()} == {2}
    assert any("harm done" in x for x in table["text"].to_pylist())


def test_a_redacted_parquet_keeps_numbers_and_no_words(folder, tmp_path):
    plain, hidden = tmp_path / "plain.parquet", tmp_path / "hidden.parquet"
    assert run(["export", str(folder), "--to", "parquet", "--out", str(plain)]) == 0
    assert run(["export", str(folder), "--to", "parquet", "--out", str(hidden), "--redact"]) == 0
    a, b = pq.read_table(plain), pq.read_table(hidden)
    assert a["log_p"].equals(b["log_p"]) and a["verdict"].equals(b["verdict"])
    assert all(x.startswith("sha256 ") for x in b["text"].to_pylist())
    assert not any(b["token_ids"].to_pylist())


def test_a_run_that_goes_on_is_exported_as_far_as_it_is(tmp_path, capfd):
    going = make_run(tmp_path / "going", CASES[:2], rounds=(60,), finished=False)
    assert run(["export", str(going), "--to", "csv", "--out", str(tmp_path / "x.csv")]) == 0
    assert "2 prompts" in capfd.readouterr().out and not (going / "estimates.json").exists()


def test_what_cannot_be_exported_is_one_message(folder, tmp_path, capfd, monkeypatch):
    assert run(["export", str(folder), "--to", "csv", "--hits", "3"]) == 2
    assert "--hits is for --to inspect" in capfd.readouterr().err
    assert run(["export", str(folder), "--to", "csv", "--out", str(tmp_path / "no" / "x.csv")]) == 2
    assert "no such folder" in capfd.readouterr().err
    assert run(["export", str(tmp_path), "--to", "csv"]) == 1
    assert run(["export", str(folder), "--to", "word"]) == 2
    capfd.readouterr()
    monkeypatch.setitem(sys.modules, "inspect_ai", None)
    monkeypatch.setitem(sys.modules, "inspect_ai.log", None)
    assert run(["export", str(folder), "--to", "inspect", "--out", str(tmp_path)]) == 2
    err = capfd.readouterr().err
    assert "pip install 'lm-tailrisk[inspect]'" in err and not list(tmp_path.iterdir())
