"""The process beside the driver, on a real Ray."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from fakeworkers import FakeJudge, FakeLaws, MakeLaws, make_config, prompts_of

from tailrisk.audit import estimating
from tailrisk.audit.driver import run_audit
from tailrisk.audit.local import LocalExecutor
from tailrisk.cluster import RayExecutor
from tailrisk.cluster.beside import Beside
from tailrisk.store import RunStore, make_manifest

pytestmark = pytest.mark.cluster
PROMPTS = prompts_of("a", "b", "c", "d")


def settings():
    config = make_config()
    return type(config).model_validate(
        {
            **config.model_dump(),
            "proposals": [{"name": "rude", "kind": "prefix", "text": "unused"}],
            "budget": {"draws": 240, "pilot": 40, "batch": 20, "rounds": 2},
            "tracking": {"uri": None},
        }
    )


def end(code: int) -> None:
    os._exit(code)


def test_values_errors_and_a_death_come_back(ray_local: None):
    beside = Beside()
    assert beside.start(divmod_of, (17, 5)).value() == (3, 2)
    assert beside.start(pid, None).value() != os.getpid()
    with pytest.raises(ZeroDivisionError):
        beside.start(divmod_of, (1, 0)).value()
    running = beside.start(end, 3)
    with pytest.raises(Exception, match=r"died|unavailable"):
        running.value()
    assert beside.start(divmod_of, (7, 2)).value() == (3, 1), "another one takes its place"
    beside.close()
    beside.close()


def divmod_of(pair: tuple[int, int]) -> tuple[int, int]:
    return divmod(*pair)


def pid(_: None) -> int:
    return os.getpid()


@pytest.mark.parametrize("killed", [False, True], ids=["whole", "killed"])
def test_an_audit_ends_with_the_same_estimates(ray_local: None, tmp_path: Path, monkeypatch, killed: bool):
    monkeypatch.setattr(estimating, "MANY", 2)
    monkeypatch.setattr(estimating, "TOGETHER", 2)
    config, found = settings(), []
    local = LocalExecutor(FakeLaws(tmp_path), FakeJudge(), PROMPTS)
    with RayExecutor(config, PROMPTS, laws_factory=MakeLaws(tmp_path, 0.0), judge_factory=FakeJudge) as pool:
        if killed:
            pool.beside.start(end, 1)
        for name, executor in (("ray", pool), ("local", local)):
            with RunStore.open(tmp_path / name, make_manifest(config, PROMPTS)) as store:
                found.append(run_audit(config, PROMPTS, executor.card, executor, store).estimates)
    assert found[0] == found[1]
