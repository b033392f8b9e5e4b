"""Which kinds of processors an audit was drawn on, written into its log before the first draws of each worker.

In half precision the same weights are another law on another kind of processor, so draws of two kinds estimate a
mixture of two laws. A cluster of unlike nodes and a run that is resumed on another machine both bring that about.
"""

from __future__ import annotations

import logging
from typing import Any

from tailrisk.audit.protocols import UNKNOWN, Executor, KnowsProcessors, Processor
from tailrisk.audit.state import AuditState
from tailrisk.store import Note, RunStore

PROCESSOR_NOTE = "processor"

logger = logging.getLogger(__name__)


def claim_processor(state: AuditState, executor: Executor, store: RunStore, worker: str) -> None:
    """To be called before a worker's draws are logged: what computes them, where that is not what the log says."""
    known = executor.processors if isinstance(executor, KnowsProcessors) else {}
    processor = known.get(worker, UNKNOWN)
    if state.processors.get(worker, UNKNOWN) == processor:
        return
    store.append_note(PROCESSOR_NOTE, worker=worker, **processor._asdict())
    before = sorted({p.kind for p in state.draws_on if p.pool == processor.pool and p.kind})
    if state.laws.corrected and before and processor.kind and processor.kind not in before:
        logger.warning(
            "%s draws on %s, earlier draws are from %s: in half precision these are different laws, and the estimates "
            "are of their mixture; keep one kind of node (cluster.%s.labels), or use target.dtype: float32",
            worker,
            processor.kind,
            ", ".join(before),
            processor.pool,
        )
    state.processors[worker] = processor


def add_note(state: AuditState, note: Note) -> None:
    """The same from the log."""
    if note.text == PROCESSOR_NOTE:
        state.processors[note.data["worker"]] = Processor(note.data["pool"], note.data["kind"])


def processor_totals(state: AuditState) -> list[dict[str, Any]]:
    """Draws by what computed them, ``kind`` '' where that is unknown; empty where nothing is known of any."""
    if not any(p.kind for p in state.draws_on):
        return []
    return [{**p._asdict(), "draws": n} for p, n in sorted(state.draws_on.items())]
