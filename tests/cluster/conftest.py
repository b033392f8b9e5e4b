from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from fakeworkers import FakeJudge, MakeLaws, make_config

from tailrisk.cluster import RayExecutor, ray_session
from tailrisk.config import ClusterConfig, PoolConfig
from tailrisk.records import Prompt

HERE = Path(__file__).parent
_shared = ExitStack()
"""Ends the Ray that tests which follow one another share."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Starting a Ray takes ten seconds of a core: tests that can share one follow one another."""
    places = [
        i for i, item in enumerate(items) if item.path.parent == HERE and item.get_closest_marker("cluster")
    ]
    tests = sorted((items[i] for i in places), key=lambda item: not _shares(item))
    for i, item in zip(places, tests, strict=True):
        items[i] = item


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(nextitem: pytest.Item | None) -> None:
    if nextitem is None or not _shares(nextitem):
        _shared.close()


def _shares(item: pytest.Item) -> bool:
    return "ray_local" in getattr(item, "fixturenames", ())


@pytest.fixture
def ray_local() -> None:
    """A local Ray, left to the tests after this one that ask for it; its resources are bookkeeping, not cores."""
    import ray

    if not ray.is_initialized():
        patch = _shared.enter_context(pytest.MonkeyPatch.context())
        patch.setenv("PYTHONPATH", str(HERE))  # the workers import fakeworkers too
        patch.setenv("JUDGE_KEY", "canary-secret")
        patch.setenv("RAY_metrics_report_interval_ms", "500")
        _shared.enter_context(ray_session(ClusterConfig(models=PoolConfig(max=4, num_cpus=1))))


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
