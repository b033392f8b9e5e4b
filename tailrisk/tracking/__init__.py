"""Experiment tracking, driver side only, and only here is MLflow imported.

``open_tracker`` gives an observer for the driver. Whatever happens to the tracking server, an audit neither
waits for it nor fails with it: everything goes through a thread of its own, and trouble costs one warning.
The run folder is the record; tracking is a copy for looking at.
"""

from __future__ import annotations

from pathlib import Path

from tailrisk.config import Config
from tailrisk.tracking.adapters import fetch_adapters
from tailrisk.tracking.threaded import ThreadedTracker
from tailrisk.tracking.tracker import NullTracker, Tracker
from tailrisk.tracking.trouble import Warn, to_stderr
from tailrisk.tracking.uploads import Uploads
from tailrisk.tracking.uri import check_uri, resolve_uri

__all__ = [
    "NullTracker",
    "Tracker",
    "check_uri",
    "fetch_adapters",
    "open_tracker",
    "open_uploads",
    "resolve_uri",
]


def open_tracker(config: Config, run_folder: Path, *, warn: Warn = to_stderr) -> Tracker:
    """The tracker that ``config.tracking`` asks for; use it as a context manager around the audit.

    Returns at once: MLflow is loaded and the run created in the background. Leaving the block finishes the
    run (its status says how the block was left) and waits for what is still to be sent, a limited time.

    Raises:
        ConfigError: ``tracking.uri`` is of a kind that cannot be used.
    """
    uri = resolve_uri(config)
    if uri is None:
        return NullTracker()
    from tailrisk.tracking.mlflow_run import MlflowRun

    return ThreadedTracker(MlflowRun(config, run_folder, uri), warn=warn)


def open_uploads(config: Config, folder: Path, *, warn: Warn = to_stderr) -> Uploads | None:
    """What tells MLflow of a training whose files are in ``folder``; None without tracking. Returns at once.

    Raises:
        ConfigError: ``tracking.uri`` is of a kind that cannot be used.
    """
    uri = resolve_uri(config)
    if uri is None:
        return None
    from tailrisk.tracking.trainingrun import upload

    return Uploads(lambda record, ending: upload(config, folder, uri, record, ending), warn=warn)
