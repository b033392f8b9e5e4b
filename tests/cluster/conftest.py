from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fakeworkers import FakeJudge, MakeLaws, make_config

from tailrisk.cluster import RayExecutor, ray_session
from tailrisk.config import ClusterConfig, PoolConfig
from tailrisk.records import Prompt


@pytest.fixture(scope="module")
def ray_local() -> Iterator[None]:
    """One local Ray for a file of tests; its resources are bookkeeping, not cores."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))  # the workers import fakeworkers too
        patch.setenv("JUDGE_KEY", "canary-secret")
        with ray_session(ClusterConfig(models=PoolConfig(max=4, num_cpus=1))):
            yield


@pytest.fixture
def executor(ray_local: None, tmp_path: Path) -> Iterator[Callable[..., RayExecutor]]:
    """``executor(prompts, sleep=..., laws=..., **cluster)``: closed at the end of the test."""
    made: list[RayExecutor] = []

    def make(prompts: list[Prompt], *, sleep: float = 0.0, laws: Any = None, **cluster: Any) -> RayExecutor:
        factory = laws or MakeLaws(tmp_path, sleep)
        made.append(
            RayExecutor(make_config(**cluster), prompts, laws_factory=factory, judge_factory=FakeJudge)
        )
        return made[-1]

    yield make
    for one in made:
        one.close()
