"""On Ray: verdicts that are kept, a judge behind an address that is asked by several batches at once, its key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from fakeworkers import FakeJudge, FakeLaws, MakeLaws, batches_of, make_config, prompts_of
from judgeserver import TEMPLATE, Fault, JudgeServer, served

from tailrisk.audit.local import LocalExecutor
from tailrisk.cluster import RayExecutor
from tailrisk.config import Config
from tailrisk.records import JUDGE_GONE, Batch, BatchResult, Prompt

pytestmark = pytest.mark.cluster

PROMPTS = prompts_of(*(f"p{i}" for i in range(4)))
BATCHES = batches_of(PROMPTS, each=12, size=6)


def config_with(**judge: Any) -> Config:
    data = make_config().model_dump(mode="json") | {"judge": judge}
    return Config.model_validate(data)


def run(pool: Any, batches: list[Batch] = BATCHES) -> dict[str, BatchResult]:
    results = {r.batch.key: r for r in pool.run(batches)}
    assert len(results) == len(batches) and all(isinstance(r, BatchResult) for r in results.values())
    return results


def calm(folder: Path, prompts: list[Prompt] = PROMPTS) -> dict[str, BatchResult]:
    return run(LocalExecutor(FakeLaws(folder), FakeJudge(), prompts))


def check_same(got: dict[str, BatchResult], want: dict[str, BatchResult]) -> None:
    for key, expected in want.items():
        assert got[key].texts == expected.texts and got[key].judge_errors == expected.judge_errors
        for name in ("log_q", "verdicts", "scores"):
            np.testing.assert_array_equal(getattr(got[key], name), getattr(expected, name))


def test_kept_verdicts_are_the_same_and_save_calls(ray_local, tmp_path):
    config = config_with(kind="refusal", cache=True)
    with RayExecutor(config, PROMPTS, laws_factory=MakeLaws(tmp_path), judge_factory=FakeJudge) as pool:
        first, second = run(pool), run(pool)
        again = pool.rejudge("p0", [*first["p0/0/0"].texts, "one two", "one two"])
    want = calm(tmp_path)
    check_same(first, want)
    check_same(second, want)
    assert sum(r.judge_calls or 0 for r in second.values()) == 0
    different = {(r.batch.prompt_id, t) for r in want.values() for t in r.texts}
    calls = sum(r.judge_calls or 0 for r in first.values())
    assert len(different) <= calls < sum(r.n for r in want.values())
    assert again.calls == 1 and again.verdicts[:6].tolist() == first["p0/0/0"].verdicts.tolist()


def test_an_endpoint_on_ray_gets_the_key_and_ray_keeps_none_of_it(ray_local, tmp_path):
    """``ray_local`` has set the key's variable before Ray began."""
    server = JudgeServer(
        grade=lambda c: "yes" if len(c.split("\n")[1].split()) % 2 == 0 else "no", sleep=0.05
    )
    server.fault = lambda call: Fault(500) if call.number % 9 == 4 else None
    with served(server):
        config = config_with(
            kind="endpoint",
            url=server.url,
            model="grader",
            key_env="JUDGE_KEY",
            rubric="yes_no",
            template=TEMPLATE,
        )
        with RayExecutor(config, PROMPTS, laws_factory=MakeLaws(tmp_path)) as pool:
            check_same(run(pool), calm(tmp_path))
            refused = Fault(401, b'{"error": {"message": "canary-secret"}}')
            server.fault = lambda call: refused
            judged = pool.rejudge("p0", ["something new"])
    assert judged.errors[0].startswith(JUDGE_GONE) and "canary" not in judged.errors[0]
    assert {h["Authorization"] for h in server.headers} == {"Bearer canary-secret"}
    assert max(server.at_once) > 6, "several batches at once"
    session = Path(ray._private.worker._global_node.get_session_dir_path())  # type: ignore[attr-defined]
    files = [p for p in session.rglob("*") if p.is_file()]
    assert files
    assert [str(p) for p in files if b"canary-secret" in p.read_bytes()] == []
