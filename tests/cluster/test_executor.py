"""The executor on a real local Ray with light workers: every batch once, whatever happens to the workers."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import ray
from fakeworkers import BrokenLaws, FakeJudge, FakeLaws, MakeLaws, attempts, batches_of, prompts_of

from tailrisk.audit.local import LocalExecutor
from tailrisk.audit.protocols import Processor
from tailrisk.cluster import RayExecutor, ray_session
from tailrisk.config import ClusterConfig, Config
from tailrisk.errors import ClusterError, ModelError
from tailrisk.records import Batch, BatchFailure, BatchResult, Prompt, Verdict

pytestmark = pytest.mark.cluster


def collect(executor: RayExecutor, batches: list[Batch]) -> tuple[dict[str, BatchResult], dict[str, str]]:
    """Outcomes by key; fails if a key comes twice."""
    results: dict[str, BatchResult] = {}
    failures: dict[str, str] = {}
    for outcome in executor.run(batches):
        key = outcome.batch.key
        assert key not in results and key not in failures
        if isinstance(outcome, BatchFailure):
            failures[key] = outcome.reason
        else:
            results[key] = outcome
    return results, failures


def assert_same(
    results: dict[str, BatchResult], prompts: list[Prompt], batches: list[Batch], folder: Path
) -> None:
    """Bit-equal to the same batches run one after the other in this process."""
    local = LocalExecutor(FakeLaws(folder), FakeJudge(), prompts)
    expected = {o.batch.key: o for o in local.run(batches) if isinstance(o, BatchResult)}
    assert set(results) == set(expected)
    for key, want in expected.items():
        got = results[key]
        assert got.batch == want.batch
        assert got.texts == want.texts and got.judge_errors == want.judge_errors
        assert all(np.array_equal(a, b) for a, b in zip(got.tokens, want.tokens, strict=True))
        for name in ("finished", "log_q", "log_q_sample", "verdicts", "scores"):
            np.testing.assert_array_equal(getattr(got, name), getattr(want, name))


def pid_of(worker: str) -> int:
    return int(worker.rpartition(":")[2])


def test_all_batches_once_and_equal_to_one_process(executor, tmp_path):
    prompts = prompts_of(*(f"p{i}" for i in range(10)))
    batches = batches_of(prompts, each=4)
    pool = executor(prompts)
    assert pool.card.names == ("target", "rude") and pool.card.fingerprints == ("a", "b")
    results, failures = collect(pool, batches)
    assert failures == {}
    assert max(attempts(tmp_path).values()) == 4
    assert_same(results, prompts, batches, tmp_path)
    drew = {result.worker for result in results.values()}
    assert {pool.processors[worker] for worker in drew} == {Processor("models", "fake unit")}
    assert {np.unique(r.verdicts).size for r in results.values()} != {1}, "both verdicts must occur"
    again, _ = collect(pool, batches[:3])
    assert_same(again, prompts, batches[:3], tmp_path)


@pytest.mark.parametrize("how", ["sigkill", pytest.param("ray.kill", marks=pytest.mark.nightly)])
def test_worker_killed_in_the_middle(executor, tmp_path, how):
    prompts = prompts_of(*(f"p{i}" for i in range(8)))
    batches = batches_of(prompts, each=3)
    pool = executor(prompts, sleep=0.05)
    results: dict[str, BatchResult] = {}
    for outcome in pool.run(batches):
        assert isinstance(outcome, BatchResult), outcome
        assert outcome.batch.key not in results
        results[outcome.batch.key] = outcome
        if len(results) == 5:
            if how == "sigkill":
                os.kill(pid_of(outcome.worker), signal.SIGKILL)
            else:
                ray.kill(pool._holders["models"]._replicas[0]._group._actors[0])
    assert len({r.worker for r in results.values()}) == 2
    assert_same(results, prompts, batches, tmp_path)


def test_poison_is_found_and_innocents_are_not_failed(executor, tmp_path):
    good = prompts_of(*(f"p{i}" for i in range(20)))
    bad = prompts_of("poison-1", "raise-1", "odd-1", "once-1")
    prompts = [*good[:7], *bad, *good[7:]]
    batches = batches_of(prompts, each=1)
    pool = executor(prompts, retries=2, models={"min": 2, "max": 2, "num_cpus": 1})
    results, failures = collect(pool, batches)
    assert set(failures) == {"poison-1/0/0", "raise-1/0/0", "odd-1/0/0"}
    assert "killed its worker" in failures["poison-1/0/0"]
    assert failures["raise-1/0/0"] == "ValueError: not good"
    assert failures["odd-1/0/0"] == "non-finite logits at token 3"
    tries = attempts(tmp_path)
    # Each may have been tried once more than its own tries: in a call for several batches.
    assert tries["odd-1"] in (1, 2), "an error of ours would come again: it is not tried again"
    assert tries["raise-1"] in (2, 3)
    assert tries["poison-1"] in (2, 3, 4)
    # Beside the poison's first deaths, the one crash and the two that raise, never alone with one of them.
    assert max(tries[p.id] for p in good) <= 5
    innocent = [b for b in batches if b.key not in failures]
    assert set(results) == {b.key for b in innocent}
    assert_same(results, prompts, innocent, tmp_path)


def test_hung_worker_is_ended_at_the_time_limit(executor, tmp_path):
    prompts = prompts_of("p0", "hang-1", "p1", "p2")
    batches = batches_of(prompts, each=1)
    pool = executor(prompts, retries=1, batch_timeout_s=2.0)
    began = time.monotonic()
    results, failures, times = {}, {}, {}
    for outcome in pool.run(batches):
        times[outcome.batch.key] = time.monotonic() - began
        if isinstance(outcome, BatchFailure):
            failures[outcome.batch.key] = outcome.reason
        else:
            results[outcome.batch.key] = outcome
    assert set(failures) == {"hang-1/0/0"}
    assert "cluster.batch_timeout_s" in failures["hang-1/0/0"]
    assert attempts(tmp_path)["hang-1"] == 1
    assert set(results) == {"p0/0/0", "p1/0/0", "p2/0/0"}
    assert 2.0 < times["hang-1/0/0"] < 10.0
    # The next ones are done by the worker that took its place: about two seconds later where there are idle cores.
    assert max(times.values()) - times["hang-1/0/0"] < 15.0
    assert len({r.worker for r in results.values()}) == 2


def test_error_that_spoils_the_process_costs_no_other_batch(executor, tmp_path):
    prompts = prompts_of("p0", "cuda-1", "p1", "p2", "p3")
    batches = batches_of(prompts, each=1)
    results, failures = collect(executor(prompts), batches)
    assert failures == {}
    assert_same(results, prompts, batches, tmp_path)


def test_judge_that_dies_leaves_answers_undetermined(executor):
    prompts = prompts_of("p0", "judgekill", "p1")
    batches = batches_of(prompts, each=1)
    pool = executor(prompts, retries=1)
    results, failures = collect(pool, batches)
    assert failures == {} and len(results) == 3
    lost = results["judgekill/0/0"]
    assert (lost.verdicts == Verdict.UNDETERMINED).all() and np.isnan(lost.scores).all()
    assert all("killed its worker" in e for e in lost.judge_errors)
    assert results["p1/0/0"].judge_errors == [""] * 5
    judged = pool.rejudge("p0", results["p0/0/0"].texts)
    np.testing.assert_array_equal(judged.verdicts, results["p0/0/0"].verdicts)
    assert (pool.rejudge("judgekill", ["x"]).verdicts == Verdict.UNDETERMINED).all()


def test_growth_to_max_and_a_run_left_early(executor, tmp_path):
    prompts = prompts_of(*(f"p{i}" for i in range(30)))
    batches = batches_of(prompts, each=2)
    pool = executor(prompts, sleep=0.15, models={"min": 1, "max": 2, "num_cpus": 1, "idle_s": 0})
    taken = []

    def source():
        for batch in batches:
            taken.append(batch)
            yield batch

    run = pool.run(source())
    next(run)
    assert len(taken) < 20, "batches are taken as there is room, not all at once"
    run.close()
    results, failures = collect(pool, batches)
    assert failures == {}
    assert len({r.worker for r in results.values()}) == 2
    assert_same(results, prompts, batches, tmp_path)
    pool.rejudge("p0", ["x"])
    assert len(pool._holders["models"]._replicas) == 1, "a worker above min with nothing to do is let go"


def test_errors_while_a_worker_loads(executor):
    prompts = prompts_of("p0")
    with pytest.raises(
        ModelError, match=r"^target\.model 'nope': no such folder; give a hub id or a folder$"
    ):
        executor(prompts, laws=BrokenLaws("model"))
    with pytest.raises(ClusterError, match=r"cluster\.models: .*KeyError: 'weights'"):
        executor(prompts, laws=BrokenLaws("bug"))
    with pytest.raises(ClusterError, match="3 workers in a row died"):
        executor(prompts, laws=BrokenLaws("exit"))


def test_worker_that_never_gets_ready(executor, monkeypatch):
    monkeypatch.setattr("tailrisk.cluster.pool.BUILD_TIMEOUT_S", 1.0)
    with pytest.raises(ClusterError, match=r"not ready after 2 s of loading"):
        executor(prompts_of("p0"), laws=BrokenLaws("slow"), batch_timeout_s=2.0)


def test_workers_with_other_laws_are_refused(executor, tmp_path):
    prompts = prompts_of("p0", "once-1")
    with pytest.raises(ClusterError, match=r"other laws.*\(rude\)"):
        collect(executor(prompts, laws=MakeLaws(tmp_path, differ=True)), batches_of(prompts, each=1))


def test_missing_resource_is_named(executor):
    began = time.monotonic()
    with pytest.raises(ClusterError, match=r"needs 1 GPU, and the largest node has 0"):
        executor(prompts_of("p0"), models={"num_cpus": 1, "num_gpus": 1})
    with pytest.raises(ClusterError, match=r"needs 512 CPU, and the largest node has"):
        executor(prompts_of("p0"), models={"num_cpus": 512})
    assert time.monotonic() - began < 10


def test_no_room_beside_other_jobs(executor):
    total = ray.cluster_resources()["CPU"]
    executor(prompts_of("p0"), models={"num_cpus": total})
    with pytest.raises(ClusterError, match=r"found no room in \d+ s; free now: 0 CPU"):
        executor(prompts_of("p0"), models={"num_cpus": total}, wait_for_nodes_s=2)


def test_workers_log_neither_text_nor_secrets(executor):
    prompts = prompts_of("p0", "raise-1", "judgekill")
    collect(executor(prompts, retries=1), batches_of(prompts, each=1))
    session = Path(ray._private.worker._global_node.get_session_dir_path())  # pyright: ignore
    logs = [p for p in session.rglob("*") if p.is_file() and p.stat().st_size < 50_000_000]
    assert len(logs) > 5
    for log in logs:
        content = log.read_bytes()
        assert b"canary" not in content and b"question p0" not in content, log


def test_sessions_of_a_process_that_is_connected(ray_local):
    with pytest.raises(ClusterError, match="already connected"), ray_session(ClusterConfig()):
        pass
    with ray_session(ClusterConfig(address="auto")):
        assert ray.is_initialized()
    assert ray.is_initialized(), "a connection that was there before is left as it was"


def test_default_factories_build_what_the_configuration_says(ray_local, tiny_model):
    from tailrisk.judges import build_judge
    from tailrisk.proposals import build_laws

    config = Config.model_validate(
        {
            "target": {"model": str(tiny_model), "dtype": "float32", "sampling": {"max_new_tokens": 4}},
            "prompts": {"path": "unused.jsonl"},
            "proposals": [{"name": "sys", "kind": "system_prompt", "text": "w3 w4"}],
            "judge": {"kind": "regex", "pattern": "w5"},
            "cluster": {"models": {"num_cpus": 1}},
        }
    )
    prompts = [Prompt(id="p0", messages=({"role": "user", "content": "w1 w2"},))]
    batches = batches_of(prompts, each=4, size=8)
    laws = build_laws(config)
    local = LocalExecutor(laws, build_judge(config), prompts)
    expected = {o.batch.key: o for o in local.run(batches) if isinstance(o, BatchResult)}
    with RayExecutor(config, prompts) as pool:
        assert pool.card.names == ("target", "sys") and pool.card.fingerprints == laws.fingerprints
        results, failures = collect(pool, batches)
    assert failures == {} and len(expected) == 4
    for key, want in expected.items():
        assert results[key].texts == want.texts
        np.testing.assert_array_equal(results[key].verdicts, want.verdicts)
        np.testing.assert_allclose(results[key].log_q, want.log_q, atol=1e-5)


def test_quick_judgements_go_together_and_one_that_kills_takes_none_with_it(executor, tmp_path, monkeypatch):
    prompts = prompts_of(*(f"p{i}" for i in range(10)), "judgekill")
    quiet = batches_of(prompts[:10], each=20)
    pool = executor(prompts, retries=1, models={"min": 2, "max": 2, "num_cpus": 1})
    calls: list[int] = []
    submit = pool._judges.submit
    monkeypatch.setattr(pool._judges, "submit", lambda task: (calls.append(len(task.args[0])), submit(task)))
    results, failures = collect(pool, quiet)
    assert failures == {} and sum(calls) == len(quiet)
    assert max(calls) > 1, "a judge that answers at once gets several batches a call"
    assert_same(results, prompts, quiet, tmp_path)
    deadly = batches_of(prompts[10:], each=1)
    mixed = [*quiet[:30], *deadly, *quiet[30:60]]
    results, failures = collect(pool, mixed)
    assert failures == {} and set(results) == {b.key for b in mixed}
    assert (results[deadly[0].key].verdicts == Verdict.UNDETERMINED).all()
    innocent = [b for b in mixed if b is not deadly[0]]
    assert_same({b.key: results[b.key] for b in innocent}, prompts, innocent, tmp_path)


def test_quick_draws_go_together_and_one_that_kills_takes_none_with_it(executor, tmp_path, monkeypatch):
    prompts = prompts_of(*(f"p{i}" for i in range(10)), "poison-1", "odd-1")
    quiet = batches_of(prompts[:10], each=20)
    pool = executor(prompts, retries=2, models={"min": 2, "max": 2, "num_cpus": 1})
    calls: list[int] = []
    models = pool._holders["models"]
    submit = models.submit
    monkeypatch.setattr(models, "submit", lambda task: (calls.append(task.batches), submit(task)))
    results, failures = collect(pool, quiet)
    assert failures == {} and sum(calls) == len(quiet)
    assert max(calls) > 1, "a worker that draws at once gets several batches a call"
    assert_same(results, prompts, quiet, tmp_path)
    bad = batches_of(prompts[10:], each=1)
    calls.clear()
    results, failures = collect(pool, [*quiet[:30], *bad, *quiet[30:60]])
    assert set(failures) == {b.key for b in bad} and max(calls) > 1
    assert failures["odd-1/0/0"] == "non-finite logits at token 3"
    assert "killed its worker" in failures["poison-1/0/0"]
    assert_same(results, prompts, quiet[:60], tmp_path)


def test_a_batch_costs_little_more_than_the_messages_it_takes(executor, tmp_path):
    prompts = prompts_of(*(f"p{i}" for i in range(10)))
    pool = executor(prompts)
    batches = batches_of(prompts, each=60, size=8)
    collect(pool, batches[:100])
    handle = pool._holders["models"]._replicas[0]._group._actors[0]

    def raw() -> float:
        """Seconds of one call of an actor that does nothing, two in flight as in a pool."""
        began = time.monotonic()
        flight = [handle.ping.remote()]
        for _ in range(200):
            flight.append(handle.ping.remote())
            ray.get(flight.pop(0), timeout=30)
        return (time.monotonic() - began) / 200

    def ours() -> float:
        began = time.monotonic()
        results, failures = collect(pool, batches)
        assert len(results) == len(batches) and not failures
        return (time.monotonic() - began) / len(batches)

    ratios = [ours() / raw() for _ in range(2)]
    assert min(ratios) < 8.0
