"""What a thread that tells of work does about trouble: one line to the user, less patience at the end, no error."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable
from typing import Literal

from tailrisk.tracking.uri import masked

FLUSH_S = 30.0
FLUSH_IN_TROUBLE_S = 3.0

Ending = Literal["FINISHED", "FAILED", "KILLED"]
Warn = Callable[[str], None]

logger = logging.getLogger(__name__)


def to_stderr(line: str) -> None:
    logger.info("%s", line)  # for run.log; as a warning it would be on stderr twice without handlers
    print(f"warning: {line}", file=sys.stderr, flush=True)


def ending_of(kind: type[BaseException] | None) -> Ending:
    """How a block was left, by the type of what left it."""
    if kind is None:
        return "FINISHED"
    return "FAILED" if issubclass(kind, Exception) else "KILLED"


class Trouble:
    """``assurance`` ends the one line that is told: what is not affected, and where the results are."""

    def __init__(self, warn: Warn, assurance: str, flush_s: float) -> None:
        self._warn = warn
        self._assurance = assurance
        self._flush_s = flush_s
        self._lasting = False
        self._warned = threading.Lock()

    @property
    def limit(self) -> float:
        """Seconds to wait at the end for what is still to be sent."""
        return min(self._flush_s, FLUSH_IN_TROUBLE_S) if self._lasting else self._flush_s

    def over(self) -> None:
        self._lasting = False

    def met(self, error: Exception) -> None:
        """Whatever a server or its client does must not reach the work itself."""
        self._lasting = True
        reason = masked(" ".join(str(error).split()))
        self.tell(f"{type(error).__name__}: {_shortened(reason)}")
        logger.debug("tracking", exc_info=error)

    def tell(self, reason: str) -> None:
        """The first trouble only."""
        if self._warned.acquire(blocking=False):
            self._warn(
                f"tracking: {reason}; {self._assurance}, and the same command run again sends what is missing"
            )


def _shortened(reason: str, limit: int = 200) -> str:
    """Without its middle: where MLflow's text is long, the address comes first and the cause last."""
    if len(reason) <= limit:
        return reason
    half = limit // 2
    return f"{reason[:half]} … {reason[-half:]}"
