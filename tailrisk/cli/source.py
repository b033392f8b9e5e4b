"""What the run log tells of how a run was started: the command, and the state of the source that ran."""

from __future__ import annotations

import subprocess
from pathlib import Path

import tailrisk


def source_state() -> str:
    """The commit of tailrisk's own repository and whether files in it were changed; '' if it runs from none."""
    root = Path(tailrisk.__file__).parents[1]
    if not (root / ".git").exists():
        return ""
    try:
        commit = _git(root, "rev-parse", "HEAD")
        changed = _git(root, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return ""
    return f"commit {commit}, with changes" if changed else f"commit {commit}"


def _git(root: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", "--no-optional-locks", "-C", str(root), *words],
        capture_output=True,
        text=True,
        timeout=10,
        check=True,
    )
    return done.stdout.strip()
