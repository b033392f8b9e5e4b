"""The strong judge's own workers on Ray: the same verdicts as in one process, and what becomes of those who die."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fakeworkers import FakeJudge, FakeLaws, MakeLaws, make_config, prompts_of

from tailrisk.audit.driver import run_audit
from tailrisk.audit.local import LocalExecutor
from tailrisk.cluster import RayExecutor
from tailrisk.records import JudgedTexts, Verdict
from tailrisk.store import RunStore, make_manifest

pytestmark = pytest.mark.cluster
PROMPTS = prompts_of("a", "b", "judgekill")


class OddJudge:
    """Another opinion than ``FakeJudge``'s: harm where the answer is long."""

    def judge(self, prompt: str, responses) -> JudgedTexts:
        verdicts = np.array([len(r.split()) > 3 for r in responses], dtype=np.int8)
        return JudgedTexts(verdicts, verdicts.astype(np.float64), [""] * len(responses))


def settings():
    config = make_config()
    return type(config).model_validate(
        {
            **config.model_dump(),
            "proposals": [{"name": "rude", "kind": "prefix", "text": "unused"}],
            "budget": {"draws": 240, "pilot": 40, "batch": 20, "rounds": 2},
            "strong_judge": {"judge": {"kind": "refusal"}, "calls": 60, "least": 0.05},
            "cluster": {**config.cluster.model_dump(), "strong_judges": {"max": 2, "num_cpus": 0}},
            "tracking": {"uri": None},
        }
    )


@pytest.fixture
def pool(ray_local: None, tmp_path: Path):
    with RayExecutor(
        settings(),
        PROMPTS,
        laws_factory=MakeLaws(tmp_path, 0.0),
        judge_factory=FakeJudge,
        strong_judge_factory=OddJudge,
    ) as executor:
        yield executor


def test_an_audit_on_ray_is_that_of_one_process(pool: RayExecutor, tmp_path: Path):
    config, prompts = settings(), PROMPTS[:2]
    local = LocalExecutor(FakeLaws(tmp_path), FakeJudge(), prompts, strong=OddJudge())
    found = []
    for name, executor in (("ray", pool), ("local", local)):
        with RunStore.open(tmp_path / name, make_manifest(config, prompts)) as store:
            found.append(run_audit(config, prompts, executor.card, executor, store))
    assert found[0].estimates == found[1].estimates
    assert found[0].totals["strong"] == found[1].totals["strong"]
    assert 0 < found[0].totals["strong"]["calls"] <= 60
    assert "strong_judges" in {p.name for p in pool.status().pools}


def test_every_portion_comes_back_once(pool: RayExecutor):
    answers = [("a" if i % 2 else "b", ["one two three four"] * (1 + i % 3) + ["one"]) for i in range(30)]
    found = dict(pool.judge_strongly(answers))
    assert sorted(found) == list(range(30))
    for i, judged in found.items():
        assert judged.verdicts.tolist() == [1] * (1 + i % 3) + [0]


def test_answers_that_the_workers_die_of_are_undetermined(ray_local: None, tmp_path: Path):
    with RayExecutor(
        settings(),
        PROMPTS,
        laws_factory=MakeLaws(tmp_path, 0.0),
        judge_factory=FakeJudge,
        strong_judge_factory=FakeJudge,
    ) as executor:
        found = dict(executor.judge_strongly([("judgekill", ["x y"]), ("a", ["x y", "x"])]))
    assert found[1].verdicts.tolist() == [0, 1]
    assert found[0].verdicts.tolist() == [Verdict.UNDETERMINED] and "judging" in found[0].errors[0]
