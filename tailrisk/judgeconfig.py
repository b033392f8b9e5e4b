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


JudgeConfig = Annotated[RefusalJudge | RegexJudge | PythonJudge, Field(discriminator="kind")]


class StrongJudge(Section):
    """A second judge, whose word counts, on a sample of the draws.

    ``calls``: answers that it reads over the whole run, never more. ``least``: smallest probability with which a
    draw is in the sample; the certified upper end and the misses that may be found rest on it.
    """

    judge: JudgeConfig
    calls: int = Field(ge=1)
    least: float = Field(default=0.02, gt=0.0, le=1.0)
