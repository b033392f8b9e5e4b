"""The part of the configuration that says who reads the answers, one class a kind; see ``tailrisk.judges``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from tailrisk.proposalconfig import Section


class JudgeSection(Section):
    """What every kind of judge has. ``check``: what ``tailrisk judge check --out`` wrote of this judge; estimates are
    then corrected for its error."""

    check: str | None = None


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


def without_check(settings: Any) -> Any:
    """Plain settings of a judge, and of all judges in it, without ``check``: what defines its verdicts."""
    if isinstance(settings, dict):
        return {key: without_check(value) for key, value in settings.items() if key != "check"}
    return [without_check(value) for value in settings] if isinstance(settings, list) else settings
