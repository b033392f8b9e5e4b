"""A judge against labelled answers: from verdicts to what ``check.json`` holds.

The judge reads the answers as in an audit: those to one prompt together, in batches. What it fails on is undetermined,
as there; where it fails on most, nothing is learned of it, and that is an error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from tailrisk import __version__
from tailrisk.audit.protocols import Judge
from tailrisk.audit.work import judge_texts
from tailrisk.errors import JudgeError
from tailrisk.labelfiles import MAX_NAMED, LabelFile, Labelled
from tailrisk.records import JudgedTexts, Prompt
from tailrisk.stats import judging
from tailrisk.store.checkfile import FORMAT, KINDS, VERDICTS, VERSION

BATCH = 32
MOST_ERRORS = 0.5
RESOLUTION_MEANS = (
    "F / (S + F), with the upper bound F of the false-positive rate and the lower bound S of the sensitivity: "
    "below it more than half of what the judge flags could be false"
)


def judge_answers(
    judge: Judge, answers: Sequence[Labelled], *, done: Callable[[int], None] = lambda n: None
) -> JudgedTexts:
    """Verdicts in the order of ``answers``; ``done`` is told how many there are so far.

    Raises:
        JudgeError: the judge failed on more than half of them.
    """
    by_prompt: dict[str, list[int]] = {}
    for i, answer in enumerate(answers):
        by_prompt.setdefault(answer.prompt, []).append(i)
    verdicts = np.zeros(len(answers), dtype=np.int8)
    scores = np.full(len(answers), np.nan)
    errors = [""] * len(answers)
    so_far = 0
    for number, (text, rows) in enumerate(by_prompt.items()):
        prompt = Prompt(id=f"labelled-{number}", messages=({"role": "user", "content": text},))
        for start in range(0, len(rows), BATCH):
            some = rows[start : start + BATCH]
            judged = judge_texts(judge, prompt, [answers[i].response for i in some])
            verdicts[some], scores[some] = judged.verdicts, judged.scores
            for i, error in zip(some, judged.errors, strict=True):
                errors[i] = error
            so_far += len(some)
            done(so_far)
    failed = [error for error in errors if error]
    if len(failed) > MOST_ERRORS * len(answers):
        raise JudgeError(
            f"the judge failed on {len(failed)} of {len(answers)} labelled answers; the first error: {failed[0]}"
        )
    return JudgedTexts(verdicts, scores, errors)


def check_content(
    labels: LabelFile,
    judged: JudgedTexts,
    judge: dict[str, Any],
    *,
    confidence: float,
    threshold: float | None,
) -> dict[str, Any]:
    """What ``check.json`` holds. ``judge``: its settings and digest; ``threshold``: that of the labels."""
    harm = np.array([answer.harm for answer in labels.answers], dtype=np.bool_)
    counts, alpha = judging.confusion(harm, judged.verdicts), 1 - confidence
    rates = judging.rates(counts, alpha)
    histogram = judging.score_histogram(harm, judged.scores)
    return {
        "format": FORMAT,
        "version": VERSION,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "tailrisk": __version__,
        "judge": judge,
        "labels": {
            "file": labels.path.name,
            "sha256": labels.sha256,
            "columns": dict(labels.columns),
            "threshold": threshold,
            "rows": labels.rows,
            "answers": len(labels.answers),
            "harm": counts.harm,
            "safe": counts.safe,
            "duplicates": labels.duplicates,
            "contradictory": len(labels.contradictory),
            "contradictory_lines": [list(lines) for lines in labels.contradictory[:MAX_NAMED]],
        },
        "confidence": confidence,
        "counts": _counts(counts),
        "judge_errors": sum(map(bool, judged.errors)),
        "rates": _rates(rates),
        "undetermined_as_safe": _rates(judging.rates(counts.as_verdict(False), alpha)),
        "undetermined_as_harm": _rates(judging.rates(counts.as_verdict(True), alpha)),
        "resolution": {
            "value": judging.resolution(rates.false_positive.high, rates.sensitivity.low),
            "definition": RESOLUTION_MEANS,
        },
        "scores": {
            "edges": histogram.edges.tolist(),
            "harm": histogram.harm.tolist(),
            "safe": histogram.safe.tolist(),
            "missing": histogram.missing,
        },
        "thresholds": [
            {
                "threshold": point.threshold,
                "sensitivity": _share(point.sensitivity),
                "false_positive_rate": _share(point.false_positive),
            }
            for point in judging.threshold_curve(harm, judged.scores, alpha)
        ],
    }


def _counts(c: judging.Confusion) -> dict[str, dict[str, int]]:
    return {
        kind: dict(zip(VERDICTS, row, strict=True)) for kind, row in zip(KINDS, (c[:3], c[3:]), strict=True)
    }


def _rates(rates: judging.Rates) -> dict[str, dict[str, float | None]]:
    named = {**rates._asdict(), "false_positive_rate": rates.false_positive}
    del named["false_positive"]
    return {name: _share(value) for name, value in named.items()}


def _share(value: judging.Share) -> dict[str, float | None]:
    return {key: number if math.isfinite(number) else None for key, number in value._asdict().items()}
