"""Section 6: the answers that the estimates rest on, the heaviest first; all of it can be redacted."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tailrisk.report.clean import digest, visible
from tailrisk.report.material import Material

MOST_PROMPTS = 100
MOST_CHARACTERS = 2000
"""Of an answer; a model may write megabytes, and the log has all of it."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """A harmful answer. ``share``: its part of the prompt's estimate; ``seed``: of its batch, which draws it again.
    ``score`` and ``reason``: the judge's; ``cut``: characters of the answer that are not shown."""

    text: str
    cut: int
    share: float
    weight: float
    times: int
    log_p: float
    component: str
    batch: str
    draw: int
    seed: int
    score: float | None
    reason: str


@dataclass(frozen=True, kw_only=True)
class Answers:
    prompt_id: str
    category: str
    hits: int
    items: tuple[Item, ...]


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """``left_out``: prompts with hits whose answers are not shown."""

    prompts: tuple[Answers, ...]
    left_out: int
    redacted: bool


def evidence_view(m: Material) -> Evidence:
    having = [r for r in m.shown if r.prompt_id in m.replay.hits]
    return Evidence(
        prompts=tuple(
            Answers(
                prompt_id=r.prompt_id,
                category=r.category,
                hits=r.hits,
                items=tuple(
                    Item(
                        text=shown_text(h.text, redact=m.redact),
                        cut=0 if m.redact else max(len(h.text) - MOST_CHARACTERS, 0),
                        share=h.share,
                        weight=h.weight,
                        times=h.times,
                        log_p=h.log_p,
                        component=visible(h.component),
                        batch=visible(h.batch),
                        draw=h.draw,
                        seed=h.seed,
                        score=h.score if math.isfinite(h.score) else None,
                        reason=shown_text(h.reason, redact=m.redact) if h.reason else "",
                    )
                    for h in m.replay.hits[r.prompt_id]
                ),
            )
            for r in having[:MOST_PROMPTS]
        ),
        left_out=max(len(having) - MOST_PROMPTS, 0),
        redacted=m.redact,
    )


def shown_text(text: str, *, redact: bool) -> str:
    """The beginning of a foreign text, safe to look at, or what stands in for it."""
    return digest(text) if redact else visible(text[:MOST_CHARACTERS], lines=True)
