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


SECONDS = {
    "Ray cluster": 420,
    "Ray cli": 350,
    "test_openings.py": 110,
    "test_truth_driver.py": 80,
    "test_sharding.py": 70,
    "test_firstpassage.py": 50,
    "test_twostage.py": 40,
    "test_doc_commands.py": 40,
    "test_sharded_judges.py": 35,
    "test_lora_fit.py": 35,
    "test_families.py": 30,
    "test_truth_search.py": 30,
}
"""What the longest groups take beside two others on two cores; the rest are taken to be in proportion to their tests.
"""
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
    """Where tests are spread over processes, a file stays together, and so do the tests that start a Ray,
    in two groups: these mostly wait, and a third one at once would only wait longer. What takes long comes first."""
    groups: dict[str, list[pytest.Item]] = {}
    for item in items:
        cluster = item.get_closest_marker("cluster") is not None
        group = f"Ray {item.path.parent.name}" if cluster else item.path.name
        group = {"Ray chaos": "Ray cli"}.get(group, group)
        item.add_marker(pytest.mark.xdist_group(group))
        groups.setdefault(group, []).append(item)

    if "PYTEST_XDIST_WORKER" in os.environ:
        # A fifth of a second is what most tests take.
        order = sorted(groups, key=lambda group: SECONDS.get(group, len(groups[group]) / 5), reverse=True)
        items[:] = [test for group in order for test in groups[group]]


@pytest.fixture
def blank_reports(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands write a blank page where the report would be, but in tests marked ``page``."""
    from fakerun import blank_page

    if request.node.get_closest_marker("page") is None:
        monkeypatch.setattr("tailrisk.report.render_report", blank_page)


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
