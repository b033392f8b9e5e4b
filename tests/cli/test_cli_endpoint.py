"""Audits with a judge behind an address: outages, the key, and what a person is told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from fakerun import CASES, TableLaws, write_config
from judgeserver import TEMPLATE, Call, Fault, JudgeServer, served

from tailrisk.audit.local import LocalExecutor
from tailrisk.audit.verdictcache import cache_of
from tailrisk.cli import run, wiring
from tailrisk.judges import endpoint
from tailrisk.judges.line import Waits
from tailrisk.records import BatchResult
from tailrisk.store import replay

GOOD = CASES[:2]
SMALL = {"draws": 1500, "pilot": 60, "batch": 100}
KEY = "canary-key-5417"
QUICK = Waits(first=0.01, most=0.05, settle=0.2, probe_first=0.05, probe_most=0.1)


class Drawing(TableLaws):
    def __init__(self) -> None:
        super().__init__(GOOD)
        self.calls = 0

    def sample(self, prompt, component, n, seed):
        self.calls += 1
        return super().sample(prompt, component, n, seed)


@pytest.fixture
def laws(monkeypatch, blank_reports) -> Iterator[list[Drawing]]:
    """Audits run in this process; the laws of each."""
    made: list[Drawing] = []
    clients = []

    @contextmanager
    def in_process(checked: Any) -> Iterator[Any]:
        made.append(Drawing())
        judge = endpoint.build(checked.config.judge, checked.config.base, waits=QUICK)
        clients.append(judge.client)
        cache = cache_of(checked.config)
        laws: Any = made[-1]
        executor = LocalExecutor(laws, judge, checked.prompts, cache=cache)
        yield executor, executor.card

    monkeypatch.setattr(wiring, "check_models", lambda config, prompts: {"model.target": "0" * 64})
    monkeypatch.setattr(wiring, "on_ray", in_process)
    monkeypatch.setenv("JUDGE_KEY", KEY)
    yield made
    for client in clients:
        client.close()


def settings(url: str, **changes: Any) -> dict[str, Any]:
    values = {"kind": "endpoint", "url": url, "model": "grader", "rubric": "yes_no", "template": TEMPLATE}
    return {**values, "key_env": "JUDGE_KEY", "retries": 2, "patience_s": 0.5, **changes}


@pytest.mark.page
def test_an_outage_ends_the_audit_and_the_next_run_draws_nothing_again(tmp_path, laws, capfd):
    """And the key is nowhere but in the requests, whatever the server says."""
    up = {"calls": 60}
    odd = Fault(500, json.dumps({"error": {"message": f"bad key {KEY}", "type": KEY}}).encode())

    def fault(call: Call) -> Fault | None:
        return odd if call.number >= up["calls"] or (call.number % 7 == 3 and not call.try_) else None

    server = JudgeServer(fault=fault)
    folder = tmp_path / "runs" / "run"
    with served(server):
        tracking = {"uri": f"sqlite:///{tmp_path / 'mlflow.db'}"}
        path = write_config(tmp_path, GOOD, budget=SMALL, judge=settings(server.url), tracking=tracking)
        assert run(["audit", str(path), "-v"]) == 1
        outage = "".join(capfd.readouterr())
        assert "error: no judge: no reply from 127.0.0.1" in outage and "same command again" in outage
        assert not (folder / "estimates.json").exists() and "prompts: " not in outage
        up["calls"] = 10**9
        assert run(["audit", str(path), "-v", "--short-ok"]) == 0
    said = "".join(capfd.readouterr())
    assert "judge calls: " in said and "were seen before" in said
    drawn = [r for r in replay(folder) if isinstance(r, BatchResult)]
    assert laws[0].calls + laws[1].calls == len(drawn), "what was drawn is not drawn again"
    estimates = json.loads((folder / "estimates.json").read_text())["estimates"]
    assert [e["undetermined"] for e in estimates] == [0, 0]
    assert run(["show", str(folder)]) == 0
    shown = "".join(capfd.readouterr())
    assert "were seen before" in shown
    page = (folder / "report.html").read_text()
    assert "judge calls" in page and "asked by the rubric yes/no" in page

    with served(JudgeServer(fault=lambda call: Fault(401, odd.body))) as other:
        refused = write_config(tmp_path / "other", GOOD, budget=SMALL, judge=settings(other.url))
        assert run(["audit", str(refused), "-v"]) == 1
    told = "".join(capfd.readouterr())
    assert "refuses access" in told
    assert {h["Authorization"] for h in [*server.headers, *other.headers]} == {f"Bearer {KEY}"}
    assert KEY not in outage + said + shown + told
    files = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert (tmp_path / "mlflow.db") in files and (folder / "run.log") in files
    assert [str(p) for p in files if KEY.encode() in p.read_bytes()] == []


def test_a_key_that_is_not_set_is_told_before_anything_is_loaded(tmp_path, laws, monkeypatch, capfd):
    monkeypatch.delenv("JUDGE_KEY")
    path = write_config(tmp_path, GOOD, budget=SMALL, judge=settings("http://127.0.0.1:9/v1"))
    assert run(["audit", str(path)]) == 2
    assert "environment variable JUDGE_KEY is not set" in capfd.readouterr().err
    assert laws == []
    # On a cluster it is the nodes that need it.
    wiring.check(path, ("cluster.address=auto",))


def test_patience_beyond_the_time_limit_of_a_batch_is_refused(tmp_path, laws, capfd):
    path = write_config(
        tmp_path, GOOD, budget=SMALL, judge=settings("http://127.0.0.1:9/v1", patience_s=1700)
    )
    assert run(["audit", str(path)]) == 2
    assert "cluster.batch_timeout_s" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, "answers in"),
        ({"model": "other"}, "fix: set judge.model to one of: grader"),
        ({"url": "http://127.0.0.1:9/v1"}, "fix: start the server"),
        ({"key_env": "NOT_THERE_AT_ALL"}, "NOT_THERE_AT_ALL is not set"),
    ],
)
def test_doctor_says_whether_the_judge_can_be_reached(tmp_path, laws, change, said):
    from tailrisk.cli.judgechecks import judge_checks

    with served(JudgeServer()) as server:
        path = write_config(tmp_path, GOOD, budget=SMALL, judge=settings(server.url) | change)
        (check,) = judge_checks(path)
    assert said in f"{check.seen} fix: {check.fix}"
    assert (check.state == "ok") == (not change)
    assert list(judge_checks(None)) == []


def test_doctor_finds_endpoints_inside_other_judges_and_the_strong_one(tmp_path, laws):
    from tailrisk.cli.judgechecks import judge_checks

    nobody = "http://127.0.0.1:9/v1"
    with served(JudgeServer()) as server:
        both = {"kind": "any", "judges": [settings(server.url), settings(nobody)]}
        strong = {"judge": settings(server.url) | {"model": "other"}, "calls": 100}
        path = write_config(tmp_path, GOOD, budget=SMALL, judge=both, strong_judge=strong)
        found = {check.name: (check.state, check.fix) for check in judge_checks(path)}
    assert found == {
        "judge.judges.0": ("ok", ""),
        "judge.judges.1": ("missing", "start the server, or correct judge.judges.1.url"),
        "strong_judge.judge": ("missing", "set strong_judge.judge.model to one of: grader"),
    }
