"""The judges of a run folder, as ``show`` tells of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tailrisk.errors import StoreError


def judge_lines(folder: Path, draws: int) -> Iterator[str]:
    """One line for each judge beside the run's own; ``draws``: those that the run has now. Nothing without one."""
    from tailrisk.audit.rejudging import home
    from tailrisk.report.clean import visible
    from tailrisk.store import other_judges

    for judge in other_judges(folder):
        what = f"judge {judge.name} ({visible(str(judge.settings.get('kind')))}, {judge.digest[:12]})"
        path = home(folder, judge.name) / "estimates.json"
        try:
            found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["audit"]
        except FileNotFoundError:
            yield f"{what}: has not read all draws yet; run tailrisk rejudge again"
            continue
        except (OSError, ValueError, KeyError) as error:
            raise StoreError(f"{path}: cannot be read ({error}); run tailrisk rejudge again") from error
        if found["draws"] < draws:
            yield f"{what}: stale, it has read {found['draws']:,} of {draws:,} draws; run tailrisk rejudge again"
        else:
            yield f"{what}: {found['hits']:,} hits in {found['draws']:,} draws; its estimates: {path}"
