"""The estimates of a run as a CSV file, one row a prompt: what spreadsheets and data frames read."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tailrisk.report.clean import visible
from tailrisk.store.atomic import replacing

PLAIN: tuple[str, ...] = (
    "prompt_id", "category", "group", "status", "estimate", "standard_error", "relative_error", "confidence", "draws",
    "target_draws", "hits", "undetermined", "ess", "k_hat", "kl", "max_weight_share", "mean_weight", "mean_weight_se",
    "gain_vs_mc",
)  # fmt: skip
COLUMNS: tuple[str, ...] = (
    *PLAIN, "working_low", "working_high", "certified_low", "certified_high", "corrected_estimate",
    "corrected_working_low", "corrected_working_high", "corrected_certified_low", "corrected_certified_high", "alarms",
    "reasons",
)  # fmt: skip
_FORMULA = ("=", "+", "-", "@")


def write_estimates(path: Path, estimates: Iterable[Mapping[str, Any]]) -> int:
    """Writes records of estimates.json to ``path``; returns the number of rows. A number that is not there is empty."""
    n = 0
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as out:
        table = csv.DictWriter(out, COLUMNS, lineterminator="\n")
        table.writeheader()
        for estimate in estimates:
            table.writerow(_row(estimate))
            n += 1
    return n


def _row(estimate: Mapping[str, Any]) -> dict[str, Any]:
    corrected = estimate.get("corrected") or {}
    row = {name: estimate.get(name) for name in PLAIN}
    for name in ("prompt_id", "category", "group"):
        row[name] = _text(row[name])
    row["corrected_estimate"] = corrected.get("estimate")
    for name in ("working", "certified"):
        row[f"{name}_low"], row[f"{name}_high"] = estimate.get(name) or (None, None)
        row[f"corrected_{name}_low"], row[f"corrected_{name}_high"] = corrected.get(name) or (None, None)
    row["alarms"] = " ".join(estimate.get("alarms") or ())
    row["reasons"] = _text("; ".join(estimate.get("reasons") or ()))
    return row


def _text(value: Any) -> str | None:
    """Foreign text: nothing invisible, and nothing that a spreadsheet would run."""
    if value is None:
        return None
    text = visible(str(value))
    return f"'{text}" if text.startswith(_FORMULA) else text
