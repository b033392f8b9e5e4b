"""The numbers and names that are tracked, as plain dictionaries; no MLflow here.

MLflow keeps infinities as the largest float and refuses odd names, so numbers that are not finite are left
out and names are made plain.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tailrisk.records import Status
from tailrisk.stats.pooled import mean_risk, pooled_mean_weight

if TYPE_CHECKING:
    from tailrisk.stats import Estimate

MAX_KEY, MAX_PARAM, MAX_TAG = 250, 6000, 8000
_CUT = "… (cut; whole in manifest.json)"


def round_metrics(estimates: Sequence[Estimate], tokens: int, judge_calls: int) -> dict[str, float]:
    """One round's figures over all prompts; ``tokens`` were generated and ``judge_calls`` made so far."""
    errors = [e.relative_error for e in estimates if e.relative_error is not None]
    errors = [e for e in errors if math.isfinite(e)]
    weight, risk = pooled_mean_weight(estimates), mean_risk(estimates)
    figures: dict[str, float] = {
        "draws": sum(e.draws for e in estimates),
        "tokens": tokens,
        "judge_calls": judge_calls,
        "hits": sum(e.hits for e in estimates),
        "undetermined": sum(e.undetermined for e in estimates),
        "mean_weight": weight.value,
        "mean_weight_se": weight.standard_error,
        "mean_risk": risk.value,
        "mean_risk_se": risk.standard_error,
        "relative_error_median": statistics.median(errors) if errors else math.nan,
        "relative_error_max": max(errors, default=math.nan),
    }
    for status in Status:
        figures[f"prompts_{status.value.replace('-', '_')}"] = sum(e.status == status for e in estimates)
    return finite(figures)


def finite(figures: Mapping[str, Any]) -> dict[str, float]:
    """Only the entries that are finite numbers, under plain names."""
    return {
        plain_key(key): float(value)
        for key, value in figures.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }


def flat(value: Any, path: str = "") -> dict[str, Any]:
    """A nested configuration as ``a.b.0.c`` -> leaf; empty lists and mappings are leaves."""
    if isinstance(value, Mapping) and value:
        items = [(str(key), inner) for key, inner in value.items()]
    elif isinstance(value, list | tuple) and value:
        items = [(str(i), inner) for i, inner in enumerate(value)]
    else:
        return {path: value}
    return {k: v for key, inner in items for k, v in flat(inner, f"{path}.{key}" if path else key).items()}


def params(config: Mapping[str, Any]) -> dict[str, str]:
    """A resolved configuration as parameters, long values cut."""
    return {plain_key(key): cut(str(value), MAX_PARAM) for key, value in flat(config).items()}


def plain_key(key: str) -> str:
    """A name MLflow takes: letters, digits, ``_ - . /`` and space; nothing that reads as a path upwards."""
    key = re.sub(r"[^A-Za-z0-9_\-. /]", "_", key)
    key = re.sub(r"\.{2,}", "_", key)
    key = "/".join(part for part in key.split("/") if part.strip(" .")) or "_"
    return key[:MAX_KEY]


def cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - len(_CUT)] + _CUT
