"""Batches that are read fast are those that were logged, bit for bit."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import storekit as kit

from tailrisk.errors import StoreError
from tailrisk.records import BatchResult, JudgedTexts
from tailrisk.store import CheckedLog, Verdicts, encode, final_numbers, final_results
from tailrisk.store import numbers as numbers_module
from tailrisk.store.log import encode_line, read_log
from tailrisk.store.numbers import numbers_of, results_of
from tailrisk.store.writer import LogWriter


def some_results() -> list[BatchResult]:
    """With what a record may hold that is rare: no tokens at all, infinite scores, words that look like keys."""
    plain, odd, bare, chosen = (kit.result(b) for b in kit.plan(0).batches[:4])
    n = odd.batch.size
    odd = replace(
        odd,
        tokens=[np.empty(0, np.int32), *odd.tokens[1:-1], np.empty(0, np.int32)],
        texts=['],"finished":[1', '"],"log_q":[["', *odd.texts[2:]],
        scores=np.array([np.inf, -np.inf, *odd.scores[2:]]),
        judge_errors=['],"seconds":1,"worker":"x","crc":1}}', *odd.judge_errors[1:]],
        worker='a "worker" \\ ü',
        judge_calls=n - 1,
    )
    bare = replace(bare, tokens=[np.empty(0, np.int32) for _ in range(n)], judge_errors=[""] * n)
    log_q = np.full((n, 3), np.nan)
    log_q[:, [0, 2]] = chosen.log_q
    chosen = replace(chosen, batch=replace(chosen.batch, components=(0, 2)), log_q=log_q)
    return [plain, odd, bare, chosen]


def body(result: BatchResult) -> bytes:
    """The JSON text of its record, as it is logged."""
    return encode_line(*encode(result))[9:-1]


def parts_of(result: BatchResult) -> tuple[str, dict]:
    record = json.loads(body(result))
    return record["kind"], record["payload"]


def body_of(kind: str, payload: dict) -> bytes:
    return json.dumps({"kind": kind, "payload": payload}, separators=(",", ":")).encode()


@pytest.fixture(params=["one by one", "by arrow"])
def parser(request, monkeypatch):
    if request.param == "by arrow":
        monkeypatch.setattr(numbers_module, "MANY", 0)
    else:
        monkeypatch.setattr(numbers_module, "_by_arrow", numbers_module._one_by_one)


@pytest.mark.usefixtures("parser")
def test_every_part_of_a_record_comes_back(tmp_path):
    results = some_results()
    read = list(results_of(body(r) for r in results))
    assert len(read) == len(results)
    for wrote, got in zip(results, read, strict=True):
        assert kit.same_result(wrote, got) and wrote.judge_calls == got.judge_calls
        assert got.log_q.flags.writeable and got.verdicts.dtype == np.int8 and got.finished.dtype == np.bool_
    for wrote, got in zip(results, numbers_of(body(r) for r in results), strict=True):
        assert (got.batch, got.n, got.seconds) == (wrote.batch, wrote.n, wrote.seconds)
        assert got.generated_tokens == wrote.generated_tokens
        assert got.judge_errors == wrote.judge_errors
        for name in ("log_q", "log_q_sample", "verdicts", "scores"):
            assert np.array_equal(getattr(got, name), getattr(wrote, name), equal_nan=True), name
        assert [a.decode() for a in got.answers()] == [",".join(map(str, t.tolist())) for t in wrote.tokens]


def test_numbers_are_the_same_however_they_are_parsed():
    rng = np.random.default_rng(3)
    values = np.concatenate([rng.integers(0, 2**63, 20_000).view(np.float64), np.log(rng.random(20_000))])
    values = np.concatenate([values[np.isfinite(values)], [0.0, -0.0, 5e-324, 1e-5, -np.inf]])
    text = json.dumps(values.tolist(), separators=(",", ":")).replace("-Infinity", "-inf")[1:-1].encode()
    for parse in (numbers_module._one_by_one, numbers_module._by_arrow):
        assert (parse(text, np.float64).view(np.int64) == values.view(np.int64)).all()
        assert parse(b"0,7,2147483647", np.int32).tolist() == [0, 7, 2147483647]


def test_keys_in_another_order_are_read_too():
    kind, payload = parts_of(some_results()[1])
    turned = {key: payload[key] for key in reversed(list(payload))}
    (wrote,), (got,) = results_of([body_of(kind, payload)]), results_of([body_of(kind, turned)])
    assert kit.same_result(wrote, got)


@pytest.mark.parametrize("missing", ["log_q", "seconds", "texts"])
def test_a_record_without_a_part_is_an_error(missing):
    kind, payload = parts_of(some_results()[0])
    del payload[missing]
    with pytest.raises(StoreError, match="written by another version"):
        list(numbers_of([body_of(kind, payload)]))


def test_a_log_that_was_checked_is_read_again_and_again(tmp_path: Path):
    writer = LogWriter(tmp_path, segment_bytes=1500)
    results = [kit.result(b) for b in kit.plan(0).batches]
    judged = JudgedTexts(results[1].verdicts, results[1].scores, results[1].judge_errors)
    again = Verdicts(key=results[0].batch.key, judged=judged)
    for record in (kit.plan(0), *results[:4], again, *results[4:]):
        writer.append(*encode(record))
    writer.close()
    log = CheckedLog(tmp_path)
    assert len(list((tmp_path / "log").glob("*.jsonl"))) > 2
    assert list(log.records()) == list(read_log(tmp_path))
    assert list(log.records({"plan", "verdicts"})) == list(read_log(tmp_path, {"plan", "verdicts"}))
    assert (log.count("batch"), log.count("verdicts"), log.count("asked")) == (len(results), 1, 0)
    for _ in range(2):
        first, *others = final_results(log)
        assert np.array_equal(first.verdicts, results[1].verdicts), "the last verdicts count"
        assert all(kit.same_result(a, b) for a, b in zip(others, results[1:], strict=True))
        assert [r.batch.key for r in final_numbers(log)] == [r.batch.key for r in results]
