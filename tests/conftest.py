"""Shared set-up: ``tests/`` itself is importable (``tinymodel``), libraries keep offline and quiet."""

from __future__ import annotations

import os
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


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where tests are spread over processes, a file stays together, and so do the tests of a folder that start a Ray:
    these mostly wait, and a third one at once would only wait longer."""
    for item in items:
        cluster = item.get_closest_marker("cluster") is not None
        folder = "cli" if item.path.parent.name == "cli" else "cluster"
        item.add_marker(pytest.mark.xdist_group(f"Ray {folder}" if cluster else item.path.name))


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
