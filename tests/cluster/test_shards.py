"""Workers of several processes: one law, one fate. Real gloo groups on a local Ray."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace

import numpy as np
import pytest
import ray
from fakeworkers import FakeJudge, FakeLaws, MakeLaws, attempts, batches_of, prompts_of
from shardlaws import MakeShardLaws
from tinymodel import make_tiny_adapter, make_tiny_model

from tailrisk.audit.local import LocalExecutor
from tailrisk.cluster import RayExecutor
from tailrisk.config import Config
from tailrisk.errors import ClusterError
from tailrisk.records import BatchFailure, BatchResult, Prompt

pytestmark = pytest.mark.cluster

TWO = {"models": {"num_cpus": 1, "tensor_parallel": 2}}


def place_of(executor: RayExecutor, rank: int) -> int:
    """The process id of one rank of the first worker, which must be idle."""
    actor = executor._holders["models"]._replicas[0]._group._actors[rank]
    return int(ray.get(actor.ping.remote(), timeout=60).worker.rpartition(":")[2])


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def placements() -> list[str]:
    table = ray.util.placement_group_table()
    return [row["state"] for row in table.values() if row["state"] != "REMOVED"]


def test_a_lost_rank_takes_its_group_along_and_the_numbers_stay(ray_local, tmp_path):
    make_tiny_model(tmp_path / "model", heads=4)
    make_tiny_adapter(tmp_path / "adapter", tmp_path / "model")
    config = Config.model_validate(
        {
            "target": {"model": "model", "dtype": "float32", "sampling": {"max_new_tokens": 6}},
            "prompts": {"path": "unused"},
            "proposals": [
                {"name": "told", "kind": "system_prompt", "text": "w3"},
                {"name": "adapted", "kind": "lora", "adapter": "adapter"},
            ],
            "judge": {"kind": "refusal"},
            "cluster": TWO,
        }
    ).at(tmp_path)
    prompts = [Prompt(id=i, messages=({"role": "user", "content": "w0 w1"},)) for i in ("p0", "p1", "p2")]
    batches = [replace(b, component=i % 3) for i, b in enumerate(batches_of(prompts, each=5))]

    from tailrisk.proposals import build_laws

    alone = {o.batch.key: o for o in LocalExecutor(build_laws(config), FakeJudge(), prompts).run(batches)}
    with RayExecutor(config, prompts, judge_factory=FakeJudge) as executor:
        assert placements() == ["CREATED"]
        ranks = [place_of(executor, rank) for rank in (0, 1)]
        assert len(set(ranks)) == 2
        together: dict[str, BatchResult] = {}
        lost = back = 0.0
        for outcome in executor.run(batches):
            assert isinstance(outcome, BatchResult), outcome
            assert outcome.batch.key not in together
            together[outcome.batch.key] = outcome
            if len(together) == 4:
                os.kill(ranks[1], signal.SIGKILL)
                lost = time.monotonic()
            elif lost and not back and outcome.worker.endswith(f":{ranks[0]}") is False:
                back = time.monotonic()
        assert back - lost < 60.0, "measured: about 10 s"
        assert not alive(ranks[0]), "the rank that was left has ended too"
        assert placements() == ["CREATED"]
    assert placements() == []
    assert set(together) == set(alone)
    for key, one in alone.items():
        two = together[key]
        assert isinstance(one, BatchResult)
        assert two.texts == one.texts
        np.testing.assert_allclose(two.log_q, one.log_q, rtol=0, atol=1e-4)
        np.testing.assert_allclose(two.log_q_sample, one.log_q_sample, rtol=0, atol=1e-4)


def test_a_rank_that_hangs_raises_or_goes_astray(executor, tmp_path):
    prompts, astray = prompts_of("hang-0", "raise-0", "fine-0", "fine-1"), prompts_of("apart-0")
    batches = batches_of(prompts, each=1)
    pool = executor([*prompts, *astray], laws=MakeShardLaws(tmp_path), batch_timeout_s=4.0, retries=1, **TWO)
    outcomes = {o.batch.prompt_id: o for o in pool.run(batches)}
    assert isinstance(outcomes["raise-0"], BatchFailure)
    assert "no memory left" in outcomes["raise-0"].reason
    assert "not done after 4 s" in outcomes["hang-0"].reason
    local = LocalExecutor(FakeLaws(tmp_path), FakeJudge(), prompts)
    for prompt_id in ("fine-0", "fine-1"):
        (want,) = local.run([b for b in batches if b.prompt_id == prompt_id])
        np.testing.assert_array_equal(outcomes[prompt_id].log_q, want.log_q)
    assert attempts(tmp_path)["fine-0"] <= 6, "both ranks, three times, and once here"

    with pytest.raises(ClusterError, match="disagree about the token ids"):
        list(pool.run(batches_of(astray)))


def test_a_judge_over_two_processes_judges_as_one(ray_local, tmp_path):
    make_tiny_model(tmp_path / "model", heads=4)
    judge = {
        "kind": "classifier",
        "format": "yes_no",
        "model": "model",
        "dtype": "float32",
        "least_mass": 1e-9,
    }
    judge |= {"template": "{prompt} {response} w4", "yes": "w7", "no": "w8"}
    pool = {"num_cpus": 1, "tensor_parallel": 2}
    values = {"target": {"model": "model"}, "prompts": {"path": "unused"}, "judge": judge}
    config = Config.model_validate({**values, "cluster": {"judges": pool}}).at(tmp_path)
    prompts = [Prompt(id="p0", messages=({"role": "user", "content": "w0 w1"},))]
    answers = ["w2 w3", "w5", "w1 w1 w6 w9", ""]

    from tailrisk.judges import build_judge

    alone = build_judge(config).judge("w0 w1", answers)
    with RayExecutor(config, prompts, laws_factory=MakeLaws(tmp_path)) as executor:
        assert placements() == ["CREATED"]
        together = executor.rejudge("p0", answers)
        batches = batches_of(prompts, each=2)
        assert all(isinstance(o, BatchResult) and not any(o.judge_errors) for o in executor.run(batches))
    assert placements() == []
    np.testing.assert_allclose(together.scores, alone.scores, rtol=0, atol=1e-4)
    assert together.verdicts.tolist() == alone.verdicts.tolist()
    assert not np.isnan(together.scores).any()
