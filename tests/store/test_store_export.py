from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import storekit as kit

from tailrisk.errors import StoreError
from tailrisk.records import JudgedTexts, Status, Verdict
from tailrisk.store import (
    RunStore,
    export,
    export_draws,
    final_results,
    hit_rows,
    write_hits,
    write_json_atomic,
)


@pytest.fixture
def run(tmp_path) -> Path:
    folder = tmp_path / "run"
    with RunStore.open(folder, kit.manifest()) as store:
        store.append_plan(kit.plan(0))
        for batch in kit.plan(0).batches:
            store.append_result(kit.result(batch))
        judged = JudgedTexts(np.array([1, 1, 1], np.int8), np.array([0.9, math.nan, 0.7]), ["", "", ""])
        store.append_verdicts(kit.plan(0).batches[0].key, judged)
    return folder


@pytest.mark.parametrize("group", [1, 5, 8192])
def test_parquet_has_one_exact_row_a_draw(run, monkeypatch, group):
    monkeypatch.setattr(export, "ROW_GROUP", group)
    count = export_draws(run, run / "draws.parquet", kit.NAMES)
    rows = pq.read_table(run / "draws.parquet").to_pylist()
    results = list(final_results(run))
    assert count == len(rows) == sum(r.n for r in results) == 24
    assert len({(r["batch_key"], r["draw"]) for r in rows}) == len(rows)
    for row, (r, i) in zip(rows, [(x, j) for x in results for j in range(x.n)], strict=True):
        assert row == {
            "prompt_id": r.batch.prompt_id,
            "component": kit.NAMES[r.batch.component],
            "batch_key": r.batch.key,
            "round": r.batch.round,
            "draw": i,
            "token_ids": r.tokens[i].tolist(),
            "text": r.texts[i],
            "finished": bool(r.finished[i]),
            "log_p": r.log_q[i, 0],
            "log_q": r.log_q[i].tolist(),
            "log_q_sample": r.log_q_sample[i],
            "verdict": Verdict(int(r.verdicts[i])).name.lower(),
            "score": None if math.isnan(r.scores[i]) else r.scores[i],
            "judge_error": r.judge_errors[i] or None,
            "seed": r.batch.seed,
        }
    assert any(-math.inf in row["log_q"] for row in rows)
    assert [r["verdict"] for r in rows[:3]] == ["harm"] * 3, "the last verdicts count"


def test_export_beside_a_driver_ends_with_the_last_whole_record(run):
    with RunStore.open(run, kit.manifest()), kit.last_segment(run).open("ab") as log:
        log.write(b'0badc0de {"kind":"ba')
        log.flush()
        assert export_draws(run, run / "draws.parquet", kit.NAMES) == 24


def test_an_export_that_fails_leaves_the_old_file(run, monkeypatch):
    path = run / "draws.parquet"
    path.write_bytes(b"old")
    with pytest.raises(StoreError, match="has no name"):
        export_draws(run, path, kit.NAMES[:1])
    assert path.read_bytes() == b"old"
    with monkeypatch.context() as patch:
        patch.setattr(
            export.Path, "open", lambda *a, **k: (_ for _ in ()).throw(OSError(28, "No space left"))
        )
        with pytest.raises(StoreError, match="No space left"):
            write_hits(run, [])
    assert not list(run.glob(".*.tmp"))


def test_hits_are_the_harmful_draws_heaviest_first(run):
    def weights(result):
        return np.exp(result.log_q[:, 0] / 10)

    assert write_hits(run, hit_rows(final_results(run), weights, kit.NAMES)) == 3 + sum(
        int((r.verdicts == 1).sum()) for r in list(final_results(run))[1:]
    )
    rows = [json.loads(line) for line in (run / "hits.jsonl").read_text().splitlines()]
    results = {r.batch.key: r for r in final_results(run)}
    assert [r["weight"] for r in rows] == sorted((r["weight"] for r in rows), reverse=True)
    assert len({(r["batch"], r["draw"]) for r in rows}) == len(rows) > 6
    for row in rows:
        result, i = results[row["batch"]], row["draw"]
        assert result.verdicts[i] == Verdict.HARM
        assert row["text"] == result.texts[i] and row["weight"] == weights(result)[i]
        assert row["log_q"] == [None if v == -math.inf else v for v in result.log_q[i]]
    by_key = {key: weights(r) for key, r in list(results.items())[:2]}
    assert {row["batch"] for row in hit_rows(final_results(run), by_key, kit.NAMES)} <= set(by_key)


def test_json_is_exact_strict_and_all_or_nothing(tmp_path):
    path = tmp_path / "estimates.json"
    write_json_atomic(path, {"a": np.float64(0.1), "b": np.arange(3), "c": Status.OK, "d": (None, True, "é")})
    assert json.loads(path.read_text(encoding="utf-8")) == {
        "a": 0.1,
        "b": [0, 1, 2],
        "c": "ok",
        "d": [None, True, "é"],
    }
    before = path.read_bytes()
    with pytest.raises(StoreError, match=r"estimates\.1\.k_hat is nan"):
        write_json_atomic(path, {"estimates": [{}, {"k_hat": math.nan}]})
    with pytest.raises(StoreError, match="x is a object"):
        write_json_atomic(path, {"x": object()})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["estimates.json"]


def test_opening_a_run_imports_nothing_heavy():
    """A start-up promise: parquet is imported by the export alone, models and trackers by nothing here."""
    code = (
        "import sys, tailrisk.store, tailrisk.configfile, tailrisk.prompts\n"
        "print([m for m in ('torch', 'ray', 'mlflow', 'transformers', 'pyarrow') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
