"""The estimates beside the target's own draws, and the hits that carry them: numbers of the validity section."""

from __future__ import annotations

import numpy as np

from tailrisk.records import Status
from tailrisk.report.checkfigures import Compared
from tailrisk.report.material import Material
from tailrisk.report.tables import Row
from tailrisk.stats.judging import clopper_pearson
from tailrisk.stats.running import TopShares, top_shares

MOST_LINES = 6


def compared(m: Material) -> list[Compared]:
    """Listed prompts that have draws of the target, with what is judged harm by the judge that reads all; answers that
    it could not judge count as safe in lower ends and as harm in upper ends."""
    alpha, found = 1 - m.confidence, []
    for shown in m.shown:
        if shown.status is Status.FAILED or shown.prompt_id not in m.judged:
            continue
        counts = m.replay.plain.get(shown.prompt_id)
        if counts is None or not counts[0]:
            continue
        draws, hits, unsure = counts
        r = m.judged[shown.prompt_id]
        estimate, interval = (
            (r.estimate, r.interval) if r.strong is None else (r.strong["judge_only"] or 0.0, None)
        )
        found.append(
            Compared(
                prompt_id=shown.prompt_id,
                draws=draws,
                hits=hits,
                plain=hits / draws,
                plain_interval=(
                    clopper_pearson(hits, draws, alpha)[0],
                    clopper_pearson(hits + unsure, draws, alpha)[1],
                ),
                estimate=estimate,
                interval=interval,
                certified=r.working is None,
            )
        )
    return found


def top_shares_of(m: Material) -> list[tuple[str, TopShares]]:
    """Of the listed prompts' estimates added up, and of the largest ones: what their heaviest hits carry. The parts of
    a prompt's hits are taken relative to their sum."""
    having: list[tuple[Row, np.ndarray]] = []
    for r in m.shown:
        parts = np.asarray(m.replay.parts.get(r.prompt_id, ()), dtype=np.float64)
        if r.status is not Status.FAILED and r.estimate > 0 and parts.sum() > 0:
            having.append((r, parts / parts.sum()))
    if not having:
        return []
    having.sort(key=lambda pair: (-pair[0].estimate, pair[0].prompt_id))
    together = top_shares(np.concatenate([r.estimate * parts for r, parts in having]))
    single = [(r.prompt_id, top_shares(parts)) for r, parts in having[: MOST_LINES - 1]]
    return [("all of them together", together), *single]
