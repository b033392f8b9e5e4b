"""How an audit ended."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tailrisk.stats import Estimate


@dataclass(frozen=True, kw_only=True)
class AuditOutcome:
    """``exit_code`` is 0 where every prompt's status is ok, 3 where one is not.

    ``totals`` is the "audit" part of estimates.json (see ``tailrisk.audit.totals``), ``search`` the part of
    that name (see ``tailrisk.audit.searchrecord``), None for methods without one.
    """

    exit_code: int
    totals: dict[str, Any]
    estimates: tuple[Estimate, ...]
    folder: Path
    search: dict[str, Any] | None = None
