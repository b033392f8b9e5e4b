"""Shared set-up: ``tests/`` itself is importable (``tinymodel``), libraries keep offline and quiet."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
if "PYTEST_XDIST_WORKER" in os.environ:
    # Workers side by side: threads beyond one each would only wait for one another.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

sys.path.insert(0, str(Path(__file__).parent))


MEMORY, ROOM = Path("/dev/shm"), 4 * 2**30


def pytest_configure(config: pytest.Config) -> None:
    if config.option.basetemp is None and MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ROOM:
        # Stores and databases sync with every step: on a disk that several processes write to, each may take 0.1 s.
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))
    if hasattr(config.option, "loadscopereorder"):
        # It would begin with the groups of most tests, and end with a few that take minutes, one process idle.
        config.option.loadscopereorder = False


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where tests are spread over processes, a file stays together, and so do the tests of a folder that start a Ray:
    these mostly wait, and a third one at once would only wait longer. What takes long comes first."""
    groups: dict[str, list[pytest.Item]] = {}
    for item in items:
        cluster = item.get_closest_marker("cluster") is not None
        folder = "cli" if item.path.parent.name == "cli" else "cluster"
        group = f"Ray {folder}" if cluster else item.path.name
        item.add_marker(pytest.mark.xdist_group(group))
        groups.setdefault(group, []).append(item)

    def cost(tests: list[pytest.Item]) -> tuple[bool, int, int]:
        slow, ray = ("slow", "nightly"), tests[0].get_closest_marker("cluster") is not None
        return ray, sum(any(map(test.get_closest_marker, slow)) for test in tests), len(tests)

    if "PYTEST_XDIST_WORKER" in os.environ:
        items[:] = [test for tests in sorted(groups.values(), key=cost, reverse=True) for test in tests]


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random float32 Llama folder (vocabulary 32, 2 layers, untied); do not write into it."""
    from tinymodel import make_tiny_model

    return make_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="session")
def tiny_adapter(tiny_model: Path) -> Path:
    """A LoRA folder that fits ``tiny_model``; do not write into it."""
    from tinymodel import make_tiny_adapter

    return make_tiny_adapter(tiny_model.parent / "adapter", tiny_model)
