"""Section 7: may the weights be trusted, and so the estimates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tailrisk.records import Status
from tailrisk.report import checkfigures, validityfigures
from tailrisk.report.checkfigures import Compared
from tailrisk.report.clean import visible
from tailrisk.report.crosschecks import compared, top_shares_of
from tailrisk.report.exhibit import Figure, table
from tailrisk.report.figures import MOST_ROWS
from tailrisk.report.heatmap import HeatMap, heat_map
from tailrisk.report.material import TRACED, Material
from tailrisk.report.replay import Replay
from tailrisk.report.searches import SearchRow, search_rows
from tailrisk.stats.intervals import t_quantile

MOST_POINTS = 200


@dataclass(frozen=True, kw_only=True)
class Validity:
    checks: tuple[tuple[str, str], ...]
    figures: tuple[Figure, ...]
    searches: tuple[SearchRow, ...]
    heat: HeatMap


def validity_view(m: Material) -> Validity:
    bounded = any(r.target_draws for r in m.rows)
    pairs = compared(m)
    figures = (_plain(pairs), _diagnostics(m), _running(m), _weights(m), _top_shares(m), _gain(m))
    return Validity(
        checks=(*checks(m.totals, m.replay, bounded=bounded), *_agreement(pairs)),
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


def _agreement(pairs: Sequence[Compared]) -> list[tuple[str, str]]:
    if not pairs:
        return []
    away = [c.prompt_id for c in pairs if not c.agree]
    told = f"the intervals of {len(pairs) - len(away):,} of {len(pairs):,} prompts meet"
    more = f"; not those of {', '.join(away[:5])}{' and others' if len(away) > 5 else ''}" if away else ""
    return [("the target's own draws alone", told + more)]


def _plain(pairs: Sequence[Compared]) -> Figure | None:
    listed = pairs[:MOST_POINTS]
    if not listed:
        return None
    head = (
        "prompt", "draws of the target", "harmful", "plain estimate", "exact from", "to", "weighted estimate", "from",
        "to", "interval",
    )  # fmt: skip
    return Figure(
        name="plain",
        question="Do the target's own draws say the same?",
        reading="Each prompt by plain sampling (the target's own draws in this run, exact interval of Clopper and "
        "Pearson, as for a number of draws that was fixed) and by its weighted estimate. On the line they are equal. "
        "An arrow: none of the target's own draws is harmful, only an upper bound is known. A red cross: the two "
        "intervals do not meet. The weighted estimate uses these draws too, so the two are not independent.",
        data=table(
            head,
            (
                (c.prompt_id, c.draws, c.hits, c.plain, *c.plain_interval, c.estimate, *(c.interval or (None, None)),
                 "-" if c.interval is None else "certified" if c.certified else "working")
                for c in listed
            ),
        ),
        draw=lambda: checkfigures.plain(listed),
    )  # fmt: skip


def _running(m: Material) -> Figure | None:
    if m.running is None:
        return None
    traces = {p: points for p, points in m.running.traces.items() if points and points[-1].value > 0}
    if not traces:
        return None
    quantile = t_quantile(m.confidence, float("inf"))
    rows = ((visible(p), m.first_round if x.round == 0 else str(x.round), x.draws, x.value, x.error)
            for p, points in traces.items() for x in points)  # fmt: skip
    return Figure(
        name="running",
        question="Have the estimates settled?",
        reading=f"The estimate after each round, of the {len(traces)} prompts with hits among the first {TRACED} of "
        "the table, against the draws that it rested on. The band is the estimate and its standard error then, from "
        f"each round's own draws, times {quantile:.2f}; the dashed line is the last estimate.",
        data=table(("prompt", "round", "draws", "estimate", "standard error"), rows),
        draw=lambda: checkfigures.running({visible(p): x for p, x in traces.items()}, quantile),
    )


def _top_shares(m: Material) -> Figure | None:
    lines = top_shares_of(m)
    if not lines:
        return None
    return Figure(
        name="top-shares",
        question="How few draws carry the estimates?",
        reading="The share of an estimate that its heaviest hits carry together. The first line is of all listed "
        "prompts' estimates added up, the others are of the prompts with the largest estimates. A line that begins "
        "high rests on one draw.",
        data=table(
            ("estimate", "heaviest hits", "share"),
            ((name, n, s) for name, found in lines for n, s in zip(found.counts, found.shares, strict=True)),
        ),
        draw=lambda: checkfigures.top_shares(lines),
    )


def _gain(m: Material) -> Figure | None:
    quoted = (Status.OK, Status.BUDGET_EXHAUSTED)
    listed = [r for r in m.shown if r.gain_vs_mc is not None and r.gain_vs_mc > 0 and r.status in quoted][
        :MOST_ROWS
    ]
    if not listed:
        return None
    return Figure(
        name="gain",
        question="What did weighted draws buy?",
        reading="How many times more draws plain sampling of the target would need for the same precision, for the "
        "prompts whose estimates may be quoted. Left of the line plain sampling would have done better.",
        data=table(("prompt", "gain", "draws"), ((r.prompt_id, r.gain_vs_mc, r.draws) for r in listed)),
        draw=lambda: checkfigures.gain(listed),
    )


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
        draw=lambda: validityfigures.weights(counted),
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
        reading="One draw that carries most of an estimate, or few effective hits, make it unreliable (hatched, "
        "squares). The mean weight "
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
        draw=lambda: validityfigures.diagnostics(listed),
    )
