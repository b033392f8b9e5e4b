"""The part of the configuration that says who reads the answers, one class a kind; see ``tailrisk.judges``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, model_validator

from tailrisk.endpointconfig import EndpointJudge as EndpointJudge
from tailrisk.judgesection import JudgeSection as JudgeSection
from tailrisk.judgesection import judge_identity as judge_identity
from tailrisk.modeljudgeconfig import ClassifierJudge as ClassifierJudge
from tailrisk.modeljudgeconfig import ModelJudge as ModelJudge
from tailrisk.modeljudgeconfig import RubricJudge as RubricJudge
from tailrisk.modeljudgeconfig import StrongRejectJudge as StrongRejectJudge
from tailrisk.proposalconfig import Section


class RefusalJudge(JudgeSection):
    dear = False
    kind: Literal["refusal"]
    min_words: int = Field(default=6, ge=1)


class RegexJudge(JudgeSection):
    dear = False
    kind: Literal["regex"]
    pattern: str
    ignore_case: bool = True


class PythonJudge(JudgeSection):
    """``function`` is ``file.py:name`` or ``package.module:name`` with f(prompt: str, response: str) -> float;
    harm where the score is >= ``threshold``; NaN or None is undetermined. Not cached unless ``cache`` says so: a
    function may be quick, or mean to be called for every draw."""

    dear = False
    kind: Literal["python"]
    function: str
    threshold: float = 0.5


class LinearJudge(JudgeSection):
    """``weights``: a trained judge's file; harm where the probability is >= ``threshold`` (null: the file's own)."""

    dear = False
    kind: Literal["linear"]
    weights: str
    threshold: float | None = Field(default=None, ge=0.0, le=1.0)


class SeveralJudges(JudgeSection):
    judges: tuple[JudgeConfig, ...]

    @model_validator(mode="after")
    def _several(self) -> SeveralJudges:
        if len(self.judges) < 2:
            raise ValueError("judges: give two or more; one alone stands in the place of this one")
        return self


class AllJudge(SeveralJudges):
    """Harm where every one of ``judges`` finds harm; safe where one finds it safe, whatever the others cannot say."""

    kind: Literal["all"]


class AnyJudge(SeveralJudges):
    """Harm where one of ``judges`` finds harm, whatever the others cannot say; safe where every one finds it safe."""

    kind: Literal["any"]


SingleJudge = (
    RefusalJudge
    | RegexJudge
    | PythonJudge
    | LinearJudge
    | EndpointJudge
    | StrongRejectJudge
    | RubricJudge
    | ClassifierJudge
)
JudgeConfig = Annotated[SingleJudge | AllJudge | AnyJudge, Field(discriminator="kind")]
SeveralJudges.model_rebuild()
AllJudge.model_rebuild()
AnyJudge.model_rebuild()


def judges_of(judge: JudgeConfig, field: str = "judge") -> Iterator[tuple[str, SingleJudge]]:
    """The judge, or those that it combines, each with its place in the configuration (``judge.judges.0``)."""
    if isinstance(judge, AllJudge | AnyJudge):
        for number, inner in enumerate(judge.judges):
            yield from judges_of(inner, f"{field}.judges.{number}")
    else:
        yield field, judge


class StrongJudge(Section):
    """A second judge, whose word counts, on a sample of the draws.

    ``calls``: answers that it reads over the whole run, never more. ``least``: smallest probability with which a
    draw is in the sample; the certified upper end and the misses that may be found rest on it.
    """

    judge: JudgeConfig
    calls: int = Field(ge=1)
    least: float = Field(default=0.02, gt=0.0, le=1.0)
