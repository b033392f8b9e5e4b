"""Section 7: may the weights be trusted, and so the estimates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tailrisk.records import Status
from tailrisk.report import validityfigures
from tailrisk.report.exhibit import Figure, table
from tailrisk.report.figures import MOST_ROWS
from tailrisk.report.heatmap import HeatMap, heat_map
from tailrisk.report.material import Material
from tailrisk.report.replay import Replay
from tailrisk.report.searches import SearchRow, search_rows


@dataclass(frozen=True, kw_only=True)
class Validity:
    checks: tuple[tuple[str, str], ...]
    figures: tuple[Figure, ...]
    searches: tuple[SearchRow, ...]
    heat: HeatMap


def validity_view(m: Material) -> Validity:
    bounded = any(r.target_draws for r in m.rows)
    figures = (_weights(m), _diagnostics(m))
    return Validity(
        checks=tuple(checks(m.totals, m.replay, bounded=bounded)),
        figures=tuple(f for f in figures if f is not None),
        searches=tuple(search_rows(m.summary.get("search"))),
        heat=heat_map(m.manifest.component_names, m.shown),
    )


def checks(totals: Mapping[str, Any], replayed: Replay, *, bounded: bool = True) -> list[tuple[str, str]]:
    """Name and outcome of the checks over all draws. Not ``bounded``: no estimate has draws of the target."""
    listed = []
    mean = totals.get("mean_weight") or {}
    if mean.get("value") is not None and mean.get("se"):
        away = abs(mean["value"] - 1) / mean["se"]
        verdict = "as it should be" if away <= 3 else "more than 3: do not trust these estimates"
        if away > 3 and mean["value"] < 1 and not bounded:
            verdict = "says nothing, because no draw is of the target itself"
        spread = f"{mean['value']:.4f} ± {mean['se']:.4f}"
        listed.append(
            ("mean weight of all prompts", f"{spread}, {away:.1f} standard errors from 1: {verdict}")
        )
    if replayed.agreement:
        gap, deviation = replayed.agreement
        text = f"{gap:+.2g} nats on average, standard deviation {deviation:.2g}"
        listed.append(
            ("scored minus sampled log p", f"{text}: the pass that scored an answer and the one that drew it")
        )
    if totals.get("duplicates"):
        count, differ = totals["duplicates"], totals.get("mismatches", 0)
        listed.append(("batches that came twice", f"{count}, counted once; {differ} of them differed"))
    if totals.get("undetermined"):
        count = totals["undetermined"]
        listed.append(("undetermined answers", f"{count}, safe in lower ends and harm in upper ends"))
    return listed


def _weights(m: Material) -> Figure | None:
    if not len(m.replay.log_w):
        return None
    counted = validityfigures.weight_counts(m.replay.log_w, m.replay.log_w_hits, m.replay.bound)
    return Figure(
        name="weights",
        question="Is any draw carrying the estimate?",
        reading="How many draws have which weight, all of them and the harmful ones. A few harmful draws far to the "
        "right of all others would carry the estimates alone.",
        data=table(("power of ten from", "to", "all draws", "harmful draws"), counted.rows),
        svg=validityfigures.weights(counted),
    )


def _diagnostics(m: Material) -> Figure | None:
    listed = [r for r in m.shown if r.status is not Status.FAILED][:MOST_ROWS]
    if not listed:
        return None
    head = (
        "prompt",
        "ESS of the hits",
        "share of the heaviest hit",
        "mean weight",
        "its standard error",
        "k-hat",
    )
    return Figure(
        name="diagnostics",
        question="Do the diagnostics of each prompt pass?",
        reading="One draw that carries most of an estimate, or few effective hits, make it unreliable. The mean weight "
        "over all draws is 1 up to chance.",
        data=table(
            head,
            (
                (
                    r.prompt_id,
                    r.ess,
                    r.max_weight_share if r.hits else None,
                    r.mean_weight,
                    r.mean_weight_se,
                    r.k_hat,
                )
                for r in listed
            ),
        ),
        svg=validityfigures.diagnostics(listed),
    )
