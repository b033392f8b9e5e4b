"""What can be seen of an audit on Ray: Prometheus's page of the node, lines of the log, the terminal's words."""

from __future__ import annotations

import logging
import re
import time
import urllib.request
from collections import Counter
from typing import Any

import pytest
from fakeworkers import CANARY, FakeJudge, MakeLaws, attempts, batches_of, prompts_of
from rich.console import Console

from tailrisk.audit.protocols import ClusterStatus, PoolStatus, Watched
from tailrisk.cli.clusterview import watch_cluster
from tailrisk.cli.progress import Lines, nodes_and_workers
from tailrisk.cli.runlog import LogObserver, run_log
from tailrisk.cluster import RayExecutor
from tailrisk.records import BatchFailure, BatchResult, RoundPlan, Verdict

Numbers = dict[str, dict[tuple[tuple[str, str], ...], float]]


def scrape(url: str) -> tuple[Numbers, str]:
    """Values by name and by those of our own tags."""
    text = urllib.request.urlopen(url, timeout=10).read().decode()
    found: Numbers = {}
    for line in text.splitlines():
        if line.startswith("ray_tailrisk_"):
            name, labels, value = re.fullmatch(r"(\w+)\{(.*)\} (\S+)", line).groups()  # pyright: ignore
            tags = dict(re.findall(r'(\w+)="([^"]*)"', labels))
            assert tags.pop("run") == "night"
            own = tuple(sorted((k, v) for k, v in tags.items() if k in ("pool", "stage", "state", "le")))
            found.setdefault(name.removeprefix("ray_tailrisk_"), {})[own] = float(value)
    return found, text


@pytest.mark.cluster
def test_prometheus_the_log_and_the_terminal_tell_what_the_audit_did(
    ray_local, tmp_path, capsys, monkeypatch
):
    from fakeworkers import make_config

    from tailrisk.cluster.metrics import metrics_address

    monkeypatch.setattr("tailrisk.cluster.sight.TELL_S", 0.1)
    monkeypatch.setattr("tailrisk.cli.progress.CLUSTER_LINE_S", 0.0)
    prompts = prompts_of("once-0", "p0", "p1", "p2", "odd-0", "raise-0")
    batches = batches_of(prompts[:1], each=1) + batches_of(prompts[1:], each=4)
    shown = Lines(Console(width=160), 1000)
    results: list[BatchResult] = []
    failures: list[BatchFailure] = []
    with run_log(tmp_path) as log:
        config = make_config(models={"min": 2, "max": 2, "num_cpus": 1}, retries=1)
        with RayExecutor(
            config, prompts, laws_factory=MakeLaws(tmp_path, 0.02), judge_factory=FakeJudge
        ) as executor:
            assert isinstance(executor, Watched)
            (metrics,) = watch_cluster(executor, shown, "night")
            observers = [LogObserver(), shown, metrics]
            plan = RoundPlan(round=0, prompts=(), batches=tuple(batches))
            for observer in observers:
                observer.round_started(plan)
            for outcome in executor.run(batches):
                (failures if isinstance(outcome, BatchFailure) else results).append(outcome)  # pyright: ignore
                for observer in observers:
                    observer.batch_done(outcome)
            metrics.round_finished(None, ())  # pyright: ignore
            deadline = time.monotonic() + 15
            while executor.status().nodes != 1 or executor.status().pools[0].ready < 2:
                assert time.monotonic() < deadline
                executor._step()
            executor._sight._told = 0.0
            executor._step()
            wanted = numbers(executor.status(), results, failures)
            assert executor.status().pools[0].retries >= 1
            url = metrics_address()
            assert url is not None
            while (
                any(found.get(name) != values for name, values in wanted.items())
                if (found := scrape(url)[0])
                else True
            ):
                assert time.monotonic() < deadline + 30, (found, wanted)
                time.sleep(0.3)
    _, page = scrape(url)
    assert CANARY not in page and "question" not in page and "once-0" not in page

    text = log.read_text()
    events = Counter(re.findall(r"event=(\w+)", text))
    assert events["batch_done"] == len(results) and events["batch_failed"] == len(failures) > 0
    assert events["worker_ready"] == events["worker_asked"] == events["worker_gone"] + 3
    assert f"metrics={url}" in text
    (gone,) = [line for line in text.splitlines() if "event=worker_gone" in line]
    assert "once-0/" in gone and re.search(r"place=\S+:\d+", gone)
    # Four batches, each tried twice, and some before that in a call for several.
    assert 8 <= attempts(tmp_path)["raise-0"] <= 12 and text.count("event=batch_retried") == 4
    for line in text.splitlines():
        if "event=batch_done" in line:
            assert re.search(
                r"key=\S+/[01]/[01] round=0 component=[01] draws=5 worker=\S+:\d+ seconds=[\d.]+", line
            )
    assert CANARY not in text and "question" not in text
    told = capsys.readouterr().out
    assert re.search(r"1 node, 1 of 2 model workers ready, 1 judge worker, \d+ batches waiting", told)


@pytest.mark.cluster
def test_a_cluster_that_lets_in_without_a_token_is_told_of(ray_local, monkeypatch):
    import ray
    from ray import _raylet

    from tailrisk.cluster import exposure

    assert exposure.of_joined() == "", "a local session has a token"
    modes: Any = _raylet.AuthenticationMode
    monkeypatch.setattr(_raylet, "get_authentication_mode", lambda: modes.DISABLED)
    (address,) = [node["NodeManagerAddress"] for node in ray.nodes()]
    told = exposure.of_joined()
    assert (f"the Ray at {address} let us in without a token" in told) is not exposure.is_loopback(address)
    monkeypatch.setattr(exposure, "is_loopback", lambda host: True)
    assert exposure.of_joined() == ""


def numbers(
    status: ClusterStatus, results: list[BatchResult], failures: list[BatchFailure]
) -> dict[str, Any]:
    """What the page must show; batch seconds by their number alone."""
    draws = sum(r.n for r in results)
    hits = sum(int((r.verdicts == Verdict.HARM).sum()) for r in results)
    assert 0 < hits < draws
    workers = {("models", "ready"): 2.0, ("judges", "ready"): 1.0}
    return {
        "draws_total": {(): float(draws)},
        "tokens_total": {(): float(sum(len(t) for r in results for t in r.tokens))},
        "hits_total": {(): float(hits)},
        "retries_total": {(): float(sum(p.retries for p in status.pools))},
        "batch_seconds_count": {(): float(len(results))},
        "nodes": {(): 1.0},
        "batches": {
            (("state", state),): float(n)
            for state, n in {
                "waiting": 0,
                "running": 0,
                "done": len(results),
                "failed": len(failures),
            }.items()
        },
        "workers": {
            (("pool", pool), ("stage", stage)): workers.get((pool, stage), 0.0)
            for pool in ("models", "judges")
            for stage in ("placing", "building", "ready")
        },
    }


def pool(name: str, ready: int, others: int = 0, running: int = 0) -> PoolStatus:
    return PoolStatus(name, others, 0, ready, 0, running, 0, 0)


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (
            ClusterStatus(3, (pool("models", 2, 2), pool("judges", 1))),
            "3 nodes, 2 of 4 model workers ready, 1 judge worker",
        ),
        (ClusterStatus(1, (pool("models", 1), pool("judges", 0))), "1 node, 1 model worker, 0 judge workers"),
        (ClusterStatus(0, (pool("models", 0, 1),)), "0 of 1 model worker ready"),
    ],
)
def test_the_words_for_a_cluster(status, told):
    assert nodes_and_workers(status) == told


def test_lines_tell_changes_and_not_every_second(capsys, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    shown = Lines(Console(width=160), 1000)
    shown.batches = 7

    def see(after: float, nodes: int, ready: int, others: int = 0) -> str:
        clock[0] += after
        shown.cluster_changed(
            ClusterStatus(nodes, (pool("models", ready, others, running=2), pool("judges", 1)))
        )
        return capsys.readouterr().out

    assert see(1, 1, 2) == "", "one machine with all its workers is no news"
    assert see(1, 1, 1, 1) == "" and see(10, 1, 1, 1).startswith(
        "1 node, 1 of 2 model workers ready, 1 judge worker"
    )
    assert see(20, 1, 1, 1) == "", "nothing new"
    assert see(1, 3, 2) == "3 nodes, 2 model workers, 1 judge worker, 5 batches waiting\n"


def test_a_watcher_that_fails_is_told_no_more(caplog, monkeypatch):
    from tailrisk.cluster import sight as module

    monkeypatch.setattr(module.Sight, "_count", lambda self: None)
    monkeypatch.setattr(module, "TELL_S", 0.0)
    sight = module.Sight([])
    seen: list[ClusterStatus] = []
    calls = 0

    def broken(status: ClusterStatus) -> None:
        nonlocal calls
        calls += 1
        raise RuntimeError("no")

    sight.watch(broken)
    sight.watch(seen.append)
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            sight.look()
    sight.close()
    assert calls == 1 and len(seen) == 3 and len(caplog.records) == 1
