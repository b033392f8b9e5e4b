"""The part of the configuration that says who reads the answers, one class a kind; see ``tailrisk.judges``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tailrisk.proposalconfig import Section


class JudgeSection(Section):
    """What every kind of judge has."""


class RefusalJudge(JudgeSection):
    kind: Literal["refusal"]
    min_words: int = Field(default=6, ge=1)


class RegexJudge(JudgeSection):
    kind: Literal["regex"]
    pattern: str
    ignore_case: bool = True


class PythonJudge(JudgeSection):
    """``function`` is ``file.py:name`` or ``package.module:name`` with f(prompt: str, response: str) -> float;
    harm where the score is >= ``threshold``; NaN or None is undetermined."""

    kind: Literal["python"]
    function: str
    threshold: float = 0.5


class LinearJudge(JudgeSection):
    """``weights``: a trained judge's file; harm where the probability is >= ``threshold`` (null: the file's own)."""

    kind: Literal["linear"]
    weights: str
    threshold: float | None = Field(default=None, ge=0.0, le=1.0)


JudgeConfig = Annotated[RefusalJudge | RegexJudge | PythonJudge | LinearJudge, Field(discriminator="kind")]
