"""What a tracker is to the driver: an observer that is also a context manager."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from tailrisk.records import BatchFailure, BatchResult, RoundPlan

if TYPE_CHECKING:
    from tailrisk.audit.outcome import AuditOutcome
    from tailrisk.audit.state import AuditState
    from tailrisk.stats import Estimate


class Tracker(Protocol):
    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def round_started(self, plan: RoundPlan) -> None: ...

    def batch_done(self, outcome: BatchResult | BatchFailure) -> None: ...

    def round_finished(self, state: AuditState, estimates: Sequence[Estimate]) -> None: ...

    def finished(self, outcome: AuditOutcome) -> None: ...


class NullTracker:
    """No tracking."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        pass

    def round_started(self, plan: RoundPlan) -> None:
        pass

    def batch_done(self, outcome: BatchResult | BatchFailure) -> None:
        pass

    def round_finished(self, state: AuditState, estimates: Sequence[Estimate]) -> None:
        pass

    def finished(self, outcome: AuditOutcome) -> None:
        pass
