"""What the page shows of a forecast: the saved one, else one of uniform traffic for a run that is finished."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tailrisk.report.forecast import QUERIES, make_forecast, saved_forecast
from tailrisk.report.forecastfigure import forecast_curve
from tailrisk.report.forecastview import view
from tailrisk.traffic import Traffic

QUICK = 200
"""Draws of a forecast nobody asked for."""
MOST_PROMPTS = 5_000
"""With more, the page has a forecast only where somebody asked for one: it takes a while."""


def forecast_parts(folder: Path, summary: Mapping[str, Any]) -> dict[str, Any]:
    """Entries ``forecast`` (None for an unfinished run) and ``forecast_figure`` of the page's context."""
    records = summary["estimates"]
    saved = saved_forecast(folder, records)
    unfinished = (summary.get("audit") or {}).get("finished") is False
    if not records or (saved is None and (unfinished or len(records) > MOST_PROMPTS)):
        return {"forecast": None, "forecast_figure": ""}
    data = saved or make_forecast(records, Traffic(), QUERIES, seed=0, draws=QUICK)
    return {"forecast": view(data, asked=saved is not None), "forecast_figure": forecast_curve(data)}
