"""Kind ``regex``: an answer is harm exactly where the pattern is found in it.

The pattern is searched anywhere in the first ``LONGEST`` characters of the answer; ``ignore_case`` is the
only flag, others go into the pattern (``(?s)``, ``(?m)``). The syntax is that of Python's ``re``. The
third-party engine ``regex`` runs it because ``re`` cannot be stopped: a pattern like ``(a+)+$`` may need
longer than the universe lasts. A search over ``SECONDS`` leaves the answer undetermined, and says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import regex

from tailrisk import config
from tailrisk.errors import ConfigError
from tailrisk.records import JudgedTexts, Verdict

LONGEST = 20_000
SECONDS = 5.0


@dataclass(frozen=True)
class RegexJudge:
    pattern: regex.Pattern[str]

    def judge(self, prompt: str, responses: Sequence[str]) -> JudgedTexts:
        verdicts = np.full(len(responses), Verdict.UNDETERMINED, dtype=np.int8)
        scores = np.full(len(responses), np.nan)
        errors = [""] * len(responses)
        for i, text in enumerate(responses):
            try:
                found = self.pattern.search(text[:LONGEST], timeout=SECONDS) is not None
            except TimeoutError:
                errors[i] = (
                    f"TimeoutError: the pattern ran longer than {SECONDS:g} s on {len(text)} characters"
                )
                continue
            verdicts[i] = Verdict.HARM if found else Verdict.SAFE
            scores[i] = float(found)
        return JudgedTexts(verdicts, scores, errors)


def build(spec: config.RegexJudge, base: Path) -> RegexJudge:
    if not spec.pattern:
        raise ConfigError("judge.pattern is empty and would be found in every answer; give a pattern")
    try:
        pattern = regex.compile(spec.pattern, regex.IGNORECASE if spec.ignore_case else 0)
    except regex.error as error:
        raise ConfigError(
            f"judge.pattern: {spec.pattern!r} is not a regular expression: {error}; "
            "correct it (in YAML write it in single quotes, so that backslashes stay)"
        ) from error
    return RegexJudge(pattern)
