from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import storekit as kit

from tailrisk.errors import StoreError
from tailrisk.records import BatchFailure, BatchResult, JudgedTexts, RoundPlan
from tailrisk.store import RunStore, Verdicts, final_results, read_log, replay
from tailrisk.store import atomic as atomic_module

HERE = Path(__file__).parent


def filled(folder: Path) -> RunStore:
    store = RunStore.open(folder, kit.manifest())
    store.append_plan(kit.plan(0))
    for batch in kit.plan(0).batches[:-1]:
        assert store.append_result(kit.result(batch))
    assert store.append_failure(BatchFailure(batch=kit.plan(0).batches[-1], reason="non-finite logits"))
    return store


def test_a_run_comes_back_in_the_order_of_the_log(tmp_path):
    with filled(tmp_path / "run") as store:
        assert not store.resumed and store.missing() == []
        store.append_plan(kit.plan(1))
    with RunStore.open(tmp_path / "run", kit.manifest()) as store:
        assert store.resumed and store.notes == []
        assert store.plans == [kit.plan(0), kit.plan(1)]
        assert store.missing() == list(kit.plan(1).batches)
        assert store.settled == {b.key for b in kit.plan(0).batches}
        records = list(store.replay())
    assert isinstance(records[0], RoundPlan)
    got = [r for r in records if isinstance(r, BatchResult)]
    assert all(kit.same_result(r, kit.result(b)) for r, b in zip(got, kit.plan(0).batches, strict=False))
    assert len(got) == len(kit.plan(0).batches) - 1
    assert records[-2] == BatchFailure(batch=kit.plan(0).batches[-1], reason="non-finite logits")


def test_a_twin_is_dropped_counted_and_compared_also_after_a_resume(tmp_path):
    twin, failed = kit.plan(0).batches[0], kit.plan(0).batches[-1]
    with filled(tmp_path) as store:
        before = sum(kind == "batch" for kind, _ in read_log(tmp_path))
        assert not store.append_result(replace(kit.result(twin), worker="w1", seconds=9.0))
        assert (store.duplicates, store.mismatches) == (1, 0)
        assert not store.append_result(kit.result(twin, shift=1))
        assert (store.duplicates, store.mismatches) == (2, 1)
        assert not store.append_result(kit.result(failed))
        assert not store.append_failure(BatchFailure(batch=twin, reason="late"))
    with RunStore.open(tmp_path, kit.manifest()) as store:
        assert (store.duplicates, store.mismatches) == (4, 1)
        assert not store.append_result(kit.result(twin, shift=1))
        assert (store.duplicates, store.mismatches) == (5, 2)
    assert sum(kind == "batch" for kind, _ in read_log(tmp_path)) == before
    assert kit.same_result(next(final_results(tmp_path)), kit.result(twin))


def test_what_is_not_in_the_plan_is_refused(tmp_path):
    with RunStore.open(tmp_path, kit.manifest()) as store:
        batch = kit.plan(0).batches[0]
        with pytest.raises(StoreError, match="not in a logged plan"):
            store.append_result(kit.result(batch))
        store.append_plan(kit.plan(0))
        with pytest.raises(StoreError, match="not in a logged plan"):
            store.append_result(kit.result(replace(batch, seed=1)))
        with pytest.raises(StoreError, match="waits for round 1"):
            store.append_plan(kit.plan(0))
        with pytest.raises(StoreError, match="planned twice"):
            store.append_plan(replace(kit.plan(0), round=1))
        again = kit.plan(1)
        with pytest.raises(StoreError, match="planned twice"):
            store.append_plan(replace(again, batches=(again.batches[0], again.batches[0])))
        store.append_plan(again)


def test_later_verdicts_replace_earlier_ones(tmp_path):
    first = kit.plan(0).batches[0]
    judged = JudgedTexts(np.array([1, 1, 0], np.int8), np.array([0.9, 0.8, np.nan]), ["", "", ""])
    last = judged._replace(verdicts=np.array([0, 1, 0], np.int8))
    with filled(tmp_path) as store:
        store.append_verdicts(first.key, judged)
        store.append_verdicts(first.key, last)
        with pytest.raises(StoreError, match="no draws"):
            store.append_verdicts(kit.plan(0).batches[-1].key, judged)
        with pytest.raises(StoreError, match="has 3 draws, 2 were judged"):
            store.append_verdicts(
                first.key, JudgedTexts(judged.verdicts[:2], judged.scores[:2], judged.errors[:2])
            )
    got = {r.batch.key: r for r in final_results(tmp_path)}
    np.testing.assert_array_equal(got[first.key].verdicts, last.verdicts)
    np.testing.assert_array_equal(got[first.key].log_q, kit.result(first).log_q)
    second = kit.plan(0).batches[1]
    assert kit.same_result(got[second.key], kit.result(second))
    assert sum(isinstance(r, Verdicts) for r in replay(tmp_path)) == 2


def test_a_second_driver_is_refused_at_once_by_pid_and_host(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, str(HERE / "lockholder.py"), str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline().strip() == "held"
        host = os.uname().nodename
        started = time.perf_counter()
        with pytest.raises(StoreError, match=f"process {holder.pid} on host {host}"):
            RunStore.open(tmp_path, kit.manifest())
        assert time.perf_counter() - started < 1.0
        assert list(replay(tmp_path)), "readers need no lock"
        holder.kill()
        holder.wait()
        with RunStore.open(tmp_path, kit.manifest()) as store:  # a dead driver's lock is taken over
            assert json.loads((tmp_path / "lock.json").read_text())["pid"] == os.getpid()
            with pytest.raises(StoreError, match=f"process {os.getpid()} "):
                RunStore.open(tmp_path, kit.manifest())
            assert len(store.plans) == 1
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    RunStore.open(tmp_path, kit.manifest()).close()


def test_a_damaged_log_gives_the_lock_back(tmp_path):
    filled(tmp_path).close()
    path = kit.last_segment(tmp_path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    for _ in range(2):
        with pytest.raises(StoreError, match=r"00000.jsonl:\d+: the log is damaged"):
            RunStore.open(tmp_path, kit.manifest())


def test_a_batch_twice_in_the_log_is_refused(tmp_path):
    filled(tmp_path).close()
    path = kit.last_segment(tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines, lines[1]]))
    with pytest.raises(StoreError, match="in the log twice"):
        RunStore.open(tmp_path, kit.manifest())


def test_the_cut_of_a_torn_tail_is_told(tmp_path):
    filled(tmp_path).close()
    with kit.last_segment(tmp_path).open("ab") as file:
        file.write(b"0123")
    with RunStore.open(tmp_path, kit.manifest()) as store:
        assert "4 bytes" in store.notes[0]


@pytest.mark.parametrize("call", ["write", "fsync"])
def test_a_full_disk_stops_the_run_and_a_resume_has_nothing_double(tmp_path, monkeypatch, call):
    def no_space(*_args):
        raise OSError(errno.ENOSPC, "No space left on device")

    store = RunStore.open(tmp_path, kit.manifest())
    store.append_plan(kit.plan(0))
    first, second, *_ = kit.plan(0).batches
    store.append_result(kit.result(first))
    store.sync()
    with monkeypatch.context() as patch:
        patch.setattr(os, call, no_space)
        with pytest.raises(StoreError, match="run the same command again"):
            store.append_result(kit.result(second))
            store.sync()
    with pytest.raises(StoreError, match="no more records"):
        store.append_result(kit.result(second))
    store.close()
    with RunStore.open(tmp_path, kit.manifest()) as store:
        assert store.missing()[0] == second
        for batch in store.missing():
            assert store.append_result(kit.result(batch))
        assert store.duplicates == 0
    keys = [r.batch.key for r in final_results(tmp_path)]
    assert sorted(keys) == sorted(b.key for b in kit.plan(0).batches)


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_at_the_start_leaves_a_folder_that_can_be_used(tmp_path, monkeypatch, call):
    def no_space(*_args):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(atomic_module.os, call, no_space)
        with pytest.raises(StoreError, match="could not be written"):
            RunStore.open(tmp_path / "run", kit.manifest())
    assert not list((tmp_path / "run").glob(".*.tmp"))
    with filled(tmp_path / "run") as store:
        assert len(store.settled) == 8


def test_the_index_holds_no_draws(tmp_path):
    """Memory of an open store does not grow with the length of the draws."""
    import tracemalloc

    def held(folder: Path, text: str) -> int:
        with RunStore.open(folder, kit.manifest()) as store:
            store.append_plan(kit.plan(0, batches_each=10))
            for batch in kit.plan(0, batches_each=10).batches:
                store.append_result(replace(kit.result(batch), texts=[text] * batch.size))
        tracemalloc.start()
        with RunStore.open(folder, kit.manifest()):
            size = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        return size

    held(tmp_path / "warm", "a")
    short, long = held(tmp_path / "short", "a"), held(tmp_path / "long", "a" * 20_000)
    assert (tmp_path / "long" / "log" / "00000.jsonl").stat().st_size > 2_000_000
    assert long < short + 100_000
