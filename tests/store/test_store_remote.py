"""Runs at an address: what is sent, what is found again, and who may write."""

from __future__ import annotations

import functools
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import storekit as kit
from flakystore import FlakyStore

from tailrisk.errors import StoreError
from tailrisk.records import BatchResult
from tailrisk.store import RunStore, replay, runfolder
from tailrisk.store.log import encode_line
from tailrisk.store.remote import Mirror, Objects, check_address, fetch_view
from tailrisk.store.remote import lease as lease_module
from tailrisk.store.remote.layout import Part, is_closed, segment_name, segments
from tailrisk.store.remote.lease import Lease
from tailrisk.store.writer import LogWriter

ADDRESS = "flaky://bucket/runs/night"


@pytest.fixture(autouse=True)
def small_segments(monkeypatch) -> Iterator[None]:
    monkeypatch.setattr(runfolder, "LogWriter", functools.partial(LogWriter, segment_bytes=4000))
    monkeypatch.setattr("tailrisk.store.remote.mirror.PAUSE_S", 0.01)
    FlakyStore.reset()
    yield
    FlakyStore.reset()


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def open_mirror(folder: Path, said: list[str] | None = None, address: str = ADDRESS) -> Mirror:
    return Mirror(address, folder, warn=(said if said is not None else []).append, send_s=3600.0)


def keys(folder: Path) -> list[str]:
    return [r.batch.key for r in replay(folder) if isinstance(r, BatchResult)]


def draw(store: RunStore, plans: int) -> None:
    for number in range(len(store.plans), plans):
        store.append_plan(kit.plan(number))
        for batch in store.missing():
            store.append_result(kit.result(batch))


def log_bytes(folder: Path) -> bytes:
    return b"".join(p.read_bytes() for p in sorted((folder / "log").glob("*.jsonl")))


def sent_bytes() -> bytes:
    objects = Objects(ADDRESS)
    while True:
        try:
            return b"".join(data for _, data in segments(objects, objects.list()))
        except StoreError as error:  # parts make room for a whole segment meanwhile
            assert isinstance(error.__cause__, FileNotFoundError)


def test_what_is_sent_round_by_round_is_found_on_another_machine_and_ends_as_on_a_disk(tmp_path):
    here, there = tmp_path / "here" / "night", tmp_path / "there" / "night"
    mirror = open_mirror(here)
    store = RunStore.open(here, kit.manifest())
    for plans in (1, 2, 3):
        draw(store, plans)
        (here / "run.log").write_text(f"round {plans}")
        mirror.send()
        until(lambda: sent_bytes() == log_bytes(here))
    names = Objects(ADDRESS).list()
    assert len(list((here / "log").iterdir())) > 2, "segments must have been closed"
    assert any(name.startswith("open/") for name in names)
    until(lambda: Objects(ADDRESS).read("run.log") == b"round 3")

    draw(store, 4)  # never sent: this driver dies here
    mirror._lease._over.set()
    Objects(ADDRESS).write("leases/0001.json", b'{"ended": true}')
    with open_mirror(there) as other:
        assert other.notes == []
        with RunStore.open(there, kit.manifest()) as resumed:
            assert resumed.resumed and len(resumed.plans) == 3 and resumed.missing() == []
            draw(resumed, 5)
        (there / "draws.parquet").write_bytes(b"rows")
        (there / "mlflow_run_id").write_text("abc")
    assert other.trouble == ""
    # The first one wakes up: what it has is another log now, and is not sent.
    before = dict(Objects(ADDRESS).list())
    mirror.send()
    until(lambda: mirror.trouble != "")
    with pytest.raises(StoreError, match=r"has taken this run over"):
        mirror.check()
    store.guard = mirror.check
    with pytest.raises(StoreError, match=r"taken this run over"):
        store.append_plan(kit.plan(4))
    store.close()
    mirror.close()
    names = Objects(ADDRESS).list()
    assert names == before
    logs = {name: (there / name).read_bytes() for name in names if not name.startswith("leases/")}
    assert logs == {name: Objects(ADDRESS).read(name) for name in logs}
    on_disk = {p.relative_to(there).as_posix() for p in there.rglob("*") if p.is_file()}
    assert set(logs) == on_disk - {"lock"}
    fetch_view(Objects(ADDRESS), tmp_path / "view")
    assert keys(tmp_path / "view") == keys(there) and len(set(keys(there))) == len(keys(there)) == 40
    assert not (tmp_path / "view" / "draws.parquet").exists()


def test_a_copy_that_goes_on_is_kept_and_one_that_does_not_is_set_aside(tmp_path):
    here, there = tmp_path / "here" / "night", tmp_path / "there" / "night"
    with open_mirror(here), RunStore.open(here, kit.manifest()) as store:
        draw(store, 1)
    with RunStore.open(here, kit.manifest()) as store:  # drawn, and never sent
        draw(store, 2)
    with open_mirror(there) as mirror:
        assert len(keys(there)) == 8 and mirror.notes == []
        with RunStore.open(there, kit.manifest()) as store:
            store.append_note("another line", by="there")
            draw(store, 3)
    with open_mirror(here) as mirror:
        (note,) = mirror.notes
        assert "gone on elsewhere" in note and str(tmp_path / "here" / "night.aside-1") in note
        assert log_bytes(here) == log_bytes(there)
        assert len(keys(tmp_path / "here" / "night.aside-1")) == 16
    with RunStore.open(here, kit.manifest()) as store:
        draw(store, 4)
    with open_mirror(here) as mirror:
        assert mirror.notes == []
    assert sent_bytes() == log_bytes(here) and len(keys(here)) == 32
    FlakyStore.reset()  # the run is removed from the address: a new one begins
    with open_mirror(here) as mirror:
        assert "no longer at" in mirror.notes[0] and not here.exists()


def test_trouble_is_told_once_and_what_was_missed_is_sent_later(tmp_path):
    here = tmp_path / "night"
    said: list[str] = []
    down = False

    def fault(what: str, path: str) -> None:
        if down:
            raise OSError("the network is down")

    FlakyStore.fault = fault
    mirror = open_mirror(here, said)
    store = RunStore.open(here, kit.manifest())
    draw(store, 1)
    mirror.send()
    until(lambda: sent_bytes() == log_bytes(here))
    down = True
    for plans in (2, 3):
        draw(store, plans)
        mirror.send()
        until(lambda: "the network is down" in mirror.trouble)
    down = False
    mirror.send()
    until(lambda: mirror.trouble == "" and sent_bytes() == log_bytes(here))
    (line,) = said
    assert ADDRESS in line and "the network is down" in line and str(here) in line
    store.close()
    mirror.close()
    assert not [name for name in Objects(ADDRESS).list() if name.startswith("open/")]


def test_faults_at_any_call_lose_nothing_and_double_nothing(tmp_path):
    """Every call in turn fails once, before or after it took effect; whoever goes on finds a prefix of the log."""
    for nth in range(1, 30, 3):
        FlakyStore.reset()
        here = tmp_path / str(nth) / "night"
        calls = 0

        def fault(what: str, path: str, nth: int = nth) -> None:
            nonlocal calls
            if what in ("write", "written", "remove") and "leases" not in path:
                calls += 1
                if calls == nth:
                    raise OSError("once")

        mirror = open_mirror(here)
        FlakyStore.fault = fault
        store = RunStore.open(here, kit.manifest())
        for plans in (1, 2, 3):
            draw(store, plans)
            mirror._try(final=False)
            sent = sent_bytes()
            assert log_bytes(here).startswith(sent)
        store.close()
        mirror._try(final=True)
        mirror.close()
        assert mirror.trouble == "" and sent_bytes() == log_bytes(here)


def test_many_parts_become_one_object(tmp_path, monkeypatch):
    monkeypatch.setattr("tailrisk.store.remote.mirror.MOST_PARTS", 3)
    here = tmp_path / "night"
    with open_mirror(here) as mirror, RunStore.open(here, kit.manifest()) as store:
        most = 0
        for i in range(12):
            store.append_note("x", n=i)
            mirror._try(final=False)
            most = max(most, sum(name.startswith("open/") for name in Objects(ADDRESS).list()))
            assert sent_bytes() == log_bytes(here)
        assert most == 3


LINES = [encode_line("note", {"text": "x", "data": {"n": n}}) for n in range(6)]


def put(**parts: bytes) -> None:
    """``s<segment>_<start>_<term>`` or ``w<segment>`` -> bytes."""
    for name, data in parts.items():
        numbers = [int(n) for n in name[1:].split("_")]
        Objects(ADDRESS).write(
            segment_name(*numbers) if name[0] == "w" else Part(numbers[0], numbers[1], numbers[2]).name, data
        )


def test_the_longest_valid_prefix_counts():
    a, b, c = LINES[0], LINES[1], LINES[2]
    n = len(a)
    assert len({len(line) for line in LINES}) == 1
    cases: list[tuple[dict[str, bytes], bytes]] = [
        ({}, b""),
        ({"s0_0_1": a, f"s0_{n}_1": b}, a + b),
        ({"s0_0_1": a, f"s0_{2 * n}_1": c}, a),  # a hole
        ({"s0_0_1": a, f"s0_{n}_1": b, f"s0_{n}_2": c}, a + c),  # sent by a driver that was thought dead
        ({"s0_0_1": a, f"s0_{n}_2": c, f"s0_{2 * n}_1": b}, a + c),  # and later still
        ({"s0_0_1": a + b[:-3], f"s0_{n}_2": c}, a + c),  # cut short
        ({"s0_0_1": a + b.replace(b"x", b"y")}, a),  # damaged
        ({"w0": a + b, f"s0_{2 * n}_3": c}, a + b + c),  # an end, and what came after it
        ({"w0": a + b[:5], "s0_0_1": a + b}, a + b),  # the whole was cut short, its parts are there
        ({"w0": a + b, "s0_0_1": a}, a + b),  # parts not yet removed
        ({"s0_0_1": a, "s1_0_1": b}, a),  # the first is not closed
    ]
    for stored, wanted in cases:
        FlakyStore.reset()
        put(**stored)
        assert sent_bytes() == wanted, stored
    assert not is_closed(a + b) and is_closed(a + encode_line("footer", {"records": 1, "sha256": ""}))


def test_one_driver_at_a_time(monkeypatch):
    first = Lease.take(Objects(ADDRESS), beat_s=0.05)
    with pytest.raises(StoreError, match=rf"process {os.getpid()} on host .* is working on this run"):
        Lease.take(Objects(ADDRESS), dead_s=5.0)
    first.release()
    second = Lease.take(Objects(ADDRESS), beat_s=3600.0)
    assert second.term == 2
    # It says nothing more, and runs where its process cannot be seen.
    said: list[str] = []
    monkeypatch.setattr(lease_module, "machine", lambda: "elsewhere")
    third = Lease.take(Objects(ADDRESS), say=said.append, dead_s=0.3, beat_s=0.05)
    assert "waiting up to 0 s for a sign of life" in said[0]
    second.check()
    assert f"process {os.getpid()}" in second.lost
    second.release()
    assert third.term == 3 and third.lost == ""
    third.check()
    assert third.lost == ""
    third.release()


def test_of_many_at_once_one_wins():
    won: list[int] = []
    lost: list[str] = []
    start = threading.Barrier(8)

    def race() -> None:
        start.wait()
        try:
            won.append(Lease.take(Objects(ADDRESS), beat_s=0.05, dead_s=2.0).term)
        except StoreError as error:
            lost.append(str(error))

    threads = [threading.Thread(target=race) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert won == [1] and len(lost) == 7


def test_the_lease_of_a_process_that_is_gone_from_this_machine_is_free_at_once(tmp_path):
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    held = f'{{"pid": {pid}, "host": "h", "machine": "{lease_module.machine()}", "beat": 3}}'
    Objects(ADDRESS).write("leases/0007.json", held.encode())
    began = time.monotonic()
    lease = Lease.take(Objects(ADDRESS))
    assert lease.term == 8 and time.monotonic() - began < 10.0
    lease.release()


def test_addresses_that_cannot_be_used(tmp_path):
    check_address(f"file://{tmp_path}/runs")
    assert not any(path.is_file() for path in tmp_path.rglob("*"))
    (tmp_path / "file").write_text("")
    for address, told in (
        ("nope://bucket/runs", "Protocol not known"),
        (f"file://{tmp_path}/file/runs", "could not be written"),
    ):
        with pytest.raises(StoreError, match=told):
            check_address(address)
    with pytest.raises(StoreError, match="there is no run folder"):
        fetch_view(Objects(f"file://{tmp_path}/runs/none"), tmp_path / "view")


@pytest.mark.parametrize(("address", "package"), [("s3://b/runs", "s3fs"), ("gs://b/runs", "gcsfs")])
def test_a_missing_package_is_named(monkeypatch, address, package):
    monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(StoreError, match=f"pip install {package}"):
        Objects(address)


def test_a_store_that_does_not_answer_is_given_up(monkeypatch):
    monkeypatch.setattr("tailrisk.store.remote.objects.CALL_S", 0.2)
    FlakyStore.fault = lambda what, path: time.sleep(2.0)
    with pytest.raises(StoreError, match=r"could not be written \(no answer in 0 s\)"):
        Objects(ADDRESS).write("x", b"")
