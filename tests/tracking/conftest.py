"""A project folder with an MLflow database that has its tables."""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path

import pytest
from mlflow import MlflowClient


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow needs seconds to make its tables: once, then copied."""
    path = tmp_path_factory.mktemp("mlflow") / "empty.db"
    MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def base(tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project folder; the working directory is elsewhere, and must stay empty."""
    # MLflow keeps what it knows of a database by its address, and a test's folder may have the name of one before it.
    project = tmp_path / uuid.uuid4().hex[:8]
    elsewhere = project / "elsewhere"
    elsewhere.mkdir(parents=True)
    shutil.copy(empty_database, project / "mlflow.db")
    monkeypatch.chdir(elsewhere)
    return project
