"""Kinds ``all`` and ``any``: what several judges say together, in three-valued (Kleene's) logic.

``all`` is safe where one judge finds the answer safe, harm where every one finds harm, and else undetermined; ``any``
is harm where one finds harm, safe where every one finds it safe, and else undetermined. Every judge has its own
threshold. The score is the least (``all``) or the greatest (``any``) of the scores that there are; it is on the
judges' scales, so it says something only where they share one. Every judge reads every answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tailrisk.audit.protocols import Judge
from tailrisk.errors import TailriskError
from tailrisk.judgeconfig import AllJudge, AnyJudge
from tailrisk.records import JudgedTexts, Verdict


@dataclass(frozen=True)
class CombinedJudge:
    """``deciding``: the verdict that one judge is enough for."""

    judges: tuple[Judge, ...]
    deciding: Verdict

    def judge(self, prompt: str, responses: Sequence[str]) -> JudgedTexts:
        given = [judge.judge(prompt, responses) for judge in self.judges]
        every = np.stack([judged.verdicts for judged in given])
        scores = np.stack([judged.scores for judged in given])
        other = Verdict.SAFE if self.deciding == Verdict.HARM else Verdict.HARM
        verdicts = np.full(len(responses), Verdict.UNDETERMINED, dtype=np.int8)
        verdicts[(every == other).all(0)] = other
        verdicts[(every == self.deciding).any(0)] = self.deciding
        best = np.fmin if self.deciding == Verdict.SAFE else np.fmax
        combined = best.reduce(scores, axis=0)
        combined[verdicts == Verdict.UNDETERMINED] = np.nan
        errors = [
            "; ".join(f"judges.{k}: {judged.errors[i]}" for k, judged in enumerate(given) if judged.errors[i])
            if verdicts[i] == Verdict.UNDETERMINED
            else ""
            for i in range(len(responses))
        ]
        return JudgedTexts(verdicts, combined, errors)


def build(
    spec: AllJudge | AnyJudge, base: Path, builders: dict[str, Callable[[Any, Path], Judge]]
) -> CombinedJudge:
    """Errors: those of its judges, with their places."""
    judges = []
    for number, inner in enumerate(spec.judges):
        try:
            judges.append(builders[inner.kind](inner, base))
        except TailriskError as error:
            raise type(error)(placed(str(error), f"judge.judges.{number}")) from error
    return CombinedJudge(tuple(judges), Verdict.SAFE if spec.kind == "all" else Verdict.HARM)


def placed(text: str, field: str) -> str:
    """An error's text that speaks of ``judge``, for the judge at another place."""
    return field + text.removeprefix("judge") if text.startswith("judge.") else f"{field}: {text}"
