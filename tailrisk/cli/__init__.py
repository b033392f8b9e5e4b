"""The command line: ``tailrisk init | doctor | plan | train | audit | submit | rejudge | judge | show | report``, ...

Every verb is thin: it loads, wires and prints, and holds no numbers of its own. Nothing heavy is imported
before a verb needs it, so ``tailrisk --help`` is instant.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence


def run(argv: Sequence[str]) -> int:
    """Run one command line and return its exit status instead of leaving the process."""
    from tailrisk.cli.app import app

    try:
        app(args=list(argv), prog_name="tailrisk")
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return 0


def main() -> None:
    """Entry point of the ``tailrisk`` script and of ``python -m tailrisk``."""
    sys.exit(run(sys.argv[1:]))
