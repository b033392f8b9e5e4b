"""The sections of a report, in their order, as one plain dataclass: what every form of the report is written from.

A further section is a module with a view and a function from ``Material`` to it, a field and a line here, a template
that ``report.html.j2`` includes, and, where it is to stand in the short form, a few lines in ``markdown``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tailrisk.report.budget import Budget, budget_view
from tailrisk.report.deployment import Deployment, deployment_view
from tailrisk.report.evidence import Evidence, evidence_view
from tailrisk.report.headline import Headline, headline_view
from tailrisk.report.judge import JudgeView, judge_view
from tailrisk.report.material import Material
from tailrisk.report.populations import Populations, populations_view
from tailrisk.report.prompts import Prompts, prompts_view
from tailrisk.report.reproduction import Reproduction, reproduction_view
from tailrisk.report.standard import Standard, standard_view
from tailrisk.report.validity import Validity, validity_view
from tailrisk.report.wording import Wording, wording_view

SCHEMA = "tailrisk.report/1"


@dataclass(frozen=True, kw_only=True)
class Report:
    """``schema`` names the form of report.json; it changes where a reader of the old form could go wrong."""

    schema: Literal["tailrisk.report/1"] = SCHEMA
    headline: Headline
    prompts: Prompts
    populations: Populations
    wording: Wording | None
    forecast: Deployment | None
    judge: JudgeView
    evidence: Evidence
    validity: Validity
    budget: Budget
    reproduction: Reproduction
    standard: Standard


def report_of(m: Material) -> Report:
    """The views of all sections."""
    return Report(
        headline=headline_view(m),
        prompts=prompts_view(m),
        populations=populations_view(m),
        wording=wording_view(m),
        forecast=deployment_view(m),
        judge=judge_view(m),
        evidence=evidence_view(m),
        validity=validity_view(m),
        budget=budget_view(m),
        reproduction=reproduction_view(m),
        standard=standard_view(m),
    )
