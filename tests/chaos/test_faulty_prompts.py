"""Whole audits on Ray with prompts that end workers, raise or hang, and with a judge that does: they go on.

What a prompt's fault may change is said by comparison with an audit in one process in which the same prompts fail
without hurting anybody: all else is bit-equal. (With an audit that lacks these prompts only the pilots can agree:
what a failing prompt was given of the budget is spent, so later rounds have less to share out.)
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from chaos.audits import calm, check_accounts, check_same, written
from chaos.cluster_child import Order
from chaos.faultylaws import tries
from truth.tablelaws import NAMES

from tailrisk.audit.driver import run_audit
from tailrisk.cluster import RayExecutor, ray_session
from tailrisk.config import ClusterConfig, PoolConfig
from tailrisk.records import BatchResult, Verdict
from tailrisk.store import RunStore, make_manifest, replay

pytestmark = [pytest.mark.cluster, pytest.mark.nightly]

TESTS = Path(__file__).parents[1]
GATES = (0.3, 0.2, 0.1, 1e-2, 0.4, 0.25, 0.15)


@pytest.fixture(scope="module")
def ray_local() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(TESTS))  # the workers import the toy too
        with ray_session(ClusterConfig(models=PoolConfig(max=4, num_cpus=1))):
            yield


def audit(order: Order) -> int:
    config, prompts = order.config, order.prompts
    with (
        RunStore.open(Path(order.folder), make_manifest(config, prompts)) as store,
        RayExecutor(
            config, prompts, laws_factory=order.make_laws, judge_factory=lambda: order.judge
        ) as executor,
    ):
        return run_audit(config, prompts, executor.card, executor, store).exit_code


def order_in(folder: Path, **changes) -> Order:
    settings = {"workers": 2, "retries": 2, "draws": 1200, "address": "auto", "gates": GATES, **changes}
    return Order(folder=str(folder / "run"), marks=str(folder), **settings)


def test_bad_prompts_are_isolated_and_the_others_do_not_notice(ray_local, tmp_path: Path):
    faults = {"p01": "always crash", "p02": "once crash 3", "p04": "always raise", "p06": "once hang 3"}
    order = order_in(tmp_path, faults=faults, timeout_s=3.0, draws=900, rounds=2)
    assert audit(order) == 3
    assert calm(order, tmp_path / "calm") == 3

    failed = check_accounts(Path(order.folder))
    keys = {f"{prompt}/{k}/0" for prompt in ("p01", "p04") for k in range(len(NAMES))}
    assert set(failed) == keys, "all of their pilots, and nothing after these"
    check_same(Path(order.folder), tmp_path / "calm", frozenset({"p01", "p04"}))
    estimates, totals = written(Path(order.folder))
    by_id = {e["prompt_id"]: e for e in estimates}
    assert totals["statuses"]["failed"] == 2
    assert "killed its worker" in by_id["p01"]["reasons"][0]
    assert by_id["p04"]["reasons"] == ["ValueError: not good"]
    assert all(by_id[p]["hits"] > 0 for p in by_id.keys() - {"p01", "p04"})

    of = {p: [n for what, n in tries(tmp_path).items() if what.startswith(f"{p}/")] for p in by_id}
    assert sum(of["p01"]) <= 4 + len(NAMES), "found guilty by one batch, the prompt costs no more workers"
    assert max(of["p04"]) == 2
    # A death beside the guilty and one of its own: two tries more than the one that is needed.
    assert max(n for p in by_id.keys() - {"p01", "p04"} for n in of[p]) <= 3


def test_three_of_sixty_prompts_are_found_and_nobody_else_pays(ray_local, tmp_path: Path):
    faults = {"p07": "always crash", "p31": "always crash", "p44": "always raise"}
    gates = tuple(0.05 + 0.3 * (i % 7) / 7 for i in range(60))
    order = order_in(tmp_path, gates=gates, faults=faults, timeout_s=30.0, draws=2400, rounds=1)
    assert audit(order) == 3
    assert calm(order, tmp_path / "calm") == 3

    failed = check_accounts(Path(order.folder))
    assert {key.split("/")[0] for key in failed} == set(faults)
    check_same(Path(order.folder), tmp_path / "calm", frozenset(faults))
    of: dict[str, list[int]] = {}
    for what, n in tries(tmp_path).items():
        of.setdefault(what.split("/")[0], []).append(n)
    assert max(n for prompt in of.keys() - faults.keys() for n in of[prompt]) <= 2
    _, totals = written(Path(order.folder))
    assert totals["prompts"] == 60 and totals["statuses"]["failed"] == 3


def test_a_judge_that_dies_hangs_or_raises_leaves_answers_undetermined(ray_local, tmp_path: Path):
    faults = {"p01": "always crash", "p03": "always hang", "p05": "always raise"}
    # More good prompts than bad ones: a judge that fails on most of a round's answers ends the audit.
    few = {"components": ("target", "good"), "batch": 200, "rounds": 1, "draws": 720}
    gates = (*GATES, 0.35, 0.18)
    order = order_in(tmp_path, gates=gates, judge_faults=faults, retries=1, timeout_s=3.0, **few)
    began = time.monotonic()
    assert audit(order) == 3
    took = time.monotonic() - began
    assert calm(order, tmp_path / "calm") == 3

    assert check_accounts(Path(order.folder)) == {}, "all is drawn"
    lost = frozenset({"p01", "p03", "p05"})
    check_same(Path(order.folder), tmp_path / "calm", lost)
    results = [r for r in replay(Path(order.folder)) if isinstance(r, BatchResult)]
    said: dict[str, set[str]] = {}
    for result in results:
        said.setdefault(result.batch.prompt_id, set()).update(result.judge_errors)
        assert (result.verdicts == Verdict.UNDETERMINED).all() == (result.batch.prompt_id in lost)
    assert all(s.startswith("judging killed its worker") and "process ended" in s for s in said["p01"])
    assert said["p03"] == {"judging killed its worker once (not done after 3 s, cluster.batch_timeout_s)"}
    assert said["p05"] == {"ValueError: not good"}
    assert all(said[p] == {""} for p in said.keys() - lost)
    _, totals = written(Path(order.folder))
    undetermined = sum(r.n for r in results if r.batch.prompt_id in lost)
    assert totals["undetermined"] == totals["judge_errors"] == undetermined > 0
    hung = sum(r.batch.prompt_id == "p03" for r in results)
    assert 3.0 < took < 60 + 15 * hung
