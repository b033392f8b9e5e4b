"""What benchmarks over named designs share: their options, and a run that is saved as it goes."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any


def parser(
    doc: str | None, *, times: int, quick: str, what: str = "replications of each design"
) -> argparse.ArgumentParser:
    """Options that all of them have; ``quick`` says what --quick does, ``what`` there are ``times`` of."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--quick", action="store_true", help=quick)
    made.add_argument("--times", type=int, default=times, help=what)
    made.add_argument("--json", type=Path, help="write the figures to this file")
    made.add_argument("--seed", type=int, default=1)
    made.add_argument("--only", help="designs whose name begins so")
    return made


def run(
    options: argparse.Namespace, designs: Iterable[tuple[str, Callable[[], dict[str, Any]]]]
) -> list[dict[str, Any]]:
    """Rows of the ``designs`` (name, what makes its row) that ``options.only`` leaves, each saved once it is there."""
    rows = []
    for name, row in designs:
        if options.only is not None and not name.startswith(options.only):
            continue
        began = time.perf_counter()
        rows.append(row())
        print(f"{name}: {time.perf_counter() - began:.0f} s", flush=True)
        if options.json:
            options.json.write_text(json.dumps({"seed": options.seed, "rows": rows}, indent=1) + "\n")
    return rows
