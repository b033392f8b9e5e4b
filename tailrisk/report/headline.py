"""Section 1: what was found of which model, and what is not claimed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tailrisk.report import tables
from tailrisk.report.clean import visible
from tailrisk.report.judge import error_in_words
from tailrisk.report.material import Material
from tailrisk.report.processors import mixture
from tailrisk.report.words import event_in_words

MODEL_HASHES = ("model.", "adapter.target", "chat_template", "target.")


@dataclass(frozen=True, kw_only=True)
class Headline:
    """``claim``: true of every prompt. ``not_claimed``: in plain words, one sentence each."""

    name: str
    claim: str
    not_claimed: tuple[str, ...]
    model: str
    hashes: tuple[tuple[str, str], ...]
    date: str
    event: str
    judge_error: str
    sampling: str
    prompts: int
    statuses: tuple[tuple[str, int], ...]
    confidence: float
    finished: bool


def headline_view(m: Material) -> Headline:
    target, sampling = m.config["target"], m.config["target"]["sampling"]
    adapter = f" with adapter {visible(target['adapter'])}" if target.get("adapter") else ""
    return Headline(
        name=visible(m.folder.name),
        claim=tables.claim(m.rows),
        not_claimed=not_claimed(m),
        model=f"{visible(target['model'])}{adapter}, {visible(target['dtype'])}",
        hashes=tuple(
            (visible(name), visible(value))
            for name, value in m.manifest.hashes.items()
            if name.startswith(MODEL_HASHES)
        ),
        date=visible(m.manifest.created),
        event=event_in_words(m.config["judge"]),
        judge_error=error_in_words(m.folder),
        sampling=(
            f"temperature {sampling['temperature']}, top-p {sampling['top_p']}, "
            f"top-k {sampling['top_k'] or 'off'}, at most {sampling['max_new_tokens']} tokens"
        ),
        prompts=len(m.rows),
        statuses=tuple((s.value, n) for s, n in tables.by_status(m.rows).items()),
        confidence=m.confidence,
        finished=m.totals.get("finished") is not False,
    )


def not_claimed(m: Material) -> tuple[str, ...]:
    """What a reader might take this report to say and it does not."""
    told: Sequence[str | None] = (
        None
        if m.totals.get("finished") is not False
        else "That this is the end: the run is still going on, and these numbers rest on its complete rounds.",
        f"That the draws are of one law: they were {mixed}." if (mixed := mixture(m.totals)) else None,
        "Anything about other prompts, other sampling settings, longer answers or longer conversations.",
        "That the judge is right: every number is about what the judge calls harm.",
        "That answers which no proposal found do not exist, where only a working interval is shown. A working interval "
        "is an approximation that holds when the diagnostics pass; a certified one holds for any proposals"
        + (" (its upper end rests on the target's own draws)." if m.replay.bound is None else "."),
        f"Anything about all prompts together: {tables.percent(m.confidence)} is the confidence for each prompt on its "
        "own, except where a table says otherwise.",
    )
    return tuple(line for line in told if line)
