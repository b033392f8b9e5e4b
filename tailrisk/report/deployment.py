"""Section 4: the forecast: the saved one, else one of uniform traffic for a run that is finished."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tailrisk.report.clean import visible
from tailrisk.report.exhibit import Figure, table
from tailrisk.report.forecast import QUERIES, make_forecast, saved_forecast
from tailrisk.report.forecastfigure import forecast_curve
from tailrisk.report.forecastview import curve_columns, view
from tailrisk.report.material import Material
from tailrisk.traffic import Traffic

QUICK = 200
"""Draws of a forecast nobody asked for."""
MOST_PROMPTS = 5_000
"""With more, the page has a forecast only where somebody asked for one: it takes a while."""


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """``asked``: somebody ran ``tailrisk forecast``; else it is the uniform one that every report has. ``lines``: what,
    the certified band, the model-based value. ``fresh``: of prompts that were not audited. ``record``: the file."""

    asked: bool
    claim: str
    mix: str
    lines: list[tuple[str, str, str]]
    fresh: list[str]
    warnings: list[str]
    curve: Figure
    record: dict[str, Any]


def deployment_view(m: Material) -> Deployment | None:
    """None for an unfinished run, and for a very large one of which nobody asked for a forecast."""
    records = m.summary["estimates"]
    saved = saved_forecast(m.folder, records)
    unfinished = m.totals.get("finished") is False
    if not records or (saved is None and (unfinished or len(records) > MOST_PROMPTS)):
        return None
    data = saved or make_forecast(records, Traffic(), QUERIES, seed=0, draws=QUICK)
    told = view(data, asked=saved is not None)
    names, points = curve_columns(data["curve"])
    return Deployment(
        asked=told.asked,
        claim=told.headline,
        mix=visible(str(data["traffic"]["mix"])),
        lines=told.lines,
        fresh=told.said,
        warnings=told.warnings,
        curve=Figure(
            name="forecast",
            question="What happens at N queries?",
            reading="The chance of at least one harmful answer in N queries. The grey band is certain, the blue "
            "one and its middle are the model's; dashed and dotted are opinions on fresh prompts, not the audited.",
            data=table(("queries", *names), points),
            draw=lambda: forecast_curve(data),
        ),
        record=dict(told.to_json()),
    )
