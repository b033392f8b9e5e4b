"""Whole audits of the toy, and what they left, for comparison."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from chaos.cluster_child import Order

from tailrisk.audit.driver import run_audit
from tailrisk.audit.local import LocalExecutor
from tailrisk.records import BatchFailure, BatchResult, RoundPlan
from tailrisk.store import RunStore, make_manifest, replay

SAME = ("draws", "tokens", "rounds", "hits", "mean_weight", "self_agreement", "statuses")


def calm(order: Order, folder: Path) -> int:
    """The same audit undisturbed in this process, where what always fails does so without hurting anybody."""
    laws = replace(order.make_laws, sleep=0.0, harmless=True)
    executor = LocalExecutor(laws(), replace(order.judge, harmless=True), order.prompts)
    with RunStore.open(folder, make_manifest(order.config, order.prompts)) as store:
        return run_audit(order.config, order.prompts, executor.card, executor, store).exit_code


def written(folder: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Estimates and totals."""
    data = json.loads((folder / "estimates.json").read_text())
    return data["estimates"], data["audit"]


def draws_of(folder: Path) -> list[tuple[str, int]]:
    """(key, number) of every draw that was written, sorted."""
    rows = pq.read_table(folder / "draws.parquet", columns=["batch_key", "draw"]).to_pylist()
    return sorted((r["batch_key"], r["draw"]) for r in rows)


def planned(folder: Path) -> list[str]:
    return [b.key for r in replay(folder) if isinstance(r, RoundPlan) for b in r.batches]


def check_accounts(folder: Path) -> dict[str, str]:
    """Every planned key has one outcome in the log, and its draws once; the reasons of those that failed."""
    records = list(replay(folder))
    plan = {b.key: b for r in records if isinstance(r, RoundPlan) for b in r.batches}
    done = [r.batch.key for r in records if isinstance(r, BatchResult)]
    failed = {r.batch.key: r.reason for r in records if isinstance(r, BatchFailure)}
    assert len(set(planned(folder))) == len(planned(folder))
    assert len(set(done)) == len(done)
    assert set(done) == set(plan) - set(failed)
    assert draws_of(folder) == sorted((key, i) for key in done for i in range(plan[key].size))
    return failed


def check_same(chaos: Path, calm: Path, failed: frozenset[str] = frozenset()) -> None:
    """Bit-equal but for what is said of the prompts that failed."""
    (one, totals), (other, calm_totals) = written(chaos), written(calm)
    assert [e["prompt_id"] for e in one] == [e["prompt_id"] for e in other]
    for got, want in zip(one, other, strict=True):
        assert got == want or got["prompt_id"] in failed, (got, want)
        assert got["status"] == want["status"]
    for key in SAME:
        assert totals[key] == calm_totals[key], key
    assert totals["duplicates"] == 0
