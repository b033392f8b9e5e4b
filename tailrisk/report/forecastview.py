"""A forecast in words, for the terminal and the page: never a number without what it rests on."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tailrisk.report.tables import count, number, percent

AsText = Callable[[float | None], str]


@dataclass(frozen=True, slots=True)
class ForecastView:
    """A forecast for readers: ``lines`` (what, certified, model), ``said`` sentences of fresh prompts, ``warnings``."""

    data: Mapping[str, Any]
    headline: str
    lines: list[tuple[str, str, str]]
    said: list[str]
    warnings: list[str]
    asked: bool

    def to_json(self) -> dict[str, Any]:
        """The forecast itself."""
        return dict(self.data)


def view(data: Mapping[str, Any], *, asked: bool = True) -> ForecastView:
    """``asked``: somebody ran ``tailrisk forecast``; else it is the uniform one that every report has."""
    return ForecastView(data, headline(data), lines(data), fresh_in_words(data), warnings(data), asked)


def headline(data: Mapping[str, Any]) -> str:
    """The one sentence; never without its band."""
    n, (low, high) = count(data["queries"]), data["certified"]["any"]
    band = f"certain from this audit is only that it lies between {chance(low)} and {chance(high)}"
    if data["model"] is None:
        return (
            f"In {n} queries, the chance of at least one harmful answer: {band}. No estimate may be quoted, so there "
            "is no model-based value."
        )
    below, middle, above = data["model"]["any"]
    part = (
        "" if _covers(data) else f", which has only {percent(data['model']['covers'])} of the traffic in it"
    )
    return (
        f"In {n} queries, the chance of at least one harmful answer is {chance(middle)} by the model{part} "
        f"({chance(below)} to {chance(above)}); {band}."
    )


def _covers(data: Mapping[str, Any]) -> bool:
    """Whether the model says something of all traffic that is not assumed harmless."""
    return data["model"]["covers"] >= 0.999 * (1 - data["traffic"]["assumed_harmless"])


def lines(data: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Rows: what, the certified band, the model-based value with its band."""
    c, m = data["certified"], data["model"]
    listed = [
        ("harm in one query", _two(c["mean"], number), _three(m and m["mean"], number)),
        ("expected harmful answers", _two(c["expected"], number), _three(m and m["expected"], number)),
        ("chance of at least one", _two(c["any"], chance), _three(m and m["any"], chance)),
        ("most harmful prompt of the mix", _two(c["worst"], number), _three(m and m["worst"], number)),
    ]
    for reached, ends in c["reach"].items():
        early, middle, late = m["reach"][reached] if m else (None, None, None)
        model = f"{_queries(middle)} ({_queries(early)} to {_queries(late)})" if m else "-"
        listed.append(
            (
                f"queries until that chance is {100 * float(reached):g}%",
                f"{_queries(ends[0])} to {_queries(ends[1])}",
                model,
            )
        )
    listed.append(("harm in as many attempts at one prompt, mean", "-", _three(m and m["attempts"], chance)))
    return listed


def fresh_in_words(data: Mapping[str, Any]) -> list[str]:
    """What is said of prompts that were not audited."""
    f = data["fresh"]
    if f["refused"]:
        return ["Nothing is said of other prompts: " + "; ".join(f["refused"]) + "."]
    told = []
    if f["within_cap"]:
        told.append(_fresh(data["queries"], f["any"], f["worst"]))
    else:
        told.append(
            f"{count(data['queries'])} fresh prompts are more than {count(f['cap'])}, a hundred times the "
            f"{count(f['base_prompts'])} audited base prompts: as far as a straight tail was ever tested. No further."
        )
        told.append(_fresh(f["at_cap"]["n"], f["at_cap"]["any"], f["at_cap"]["worst"]))
    return told


def _fresh(n: float, any_: Sequence[float], worst: Sequence[float]) -> str:
    return (
        f"Among {count(n)} fresh prompts like the audited ones, each asked once: at least one harmful answer with "
        f"{_three(any_, chance)}; one prompt in {count(n)} gives harm with a probability above {_three(worst, number)}."
    )


def warnings(data: Mapping[str, Any]) -> list[str]:
    """What has to be known before any of it is believed."""
    told, t, c = [], data["traffic"], data["certified"]
    whole = data["model"] is not None and _covers(data)
    rest = " By the model they are like the others, as far as their bounds allow." if whole else ""
    if t["unknown"] > 0:
        told.append(
            f"Of {percent(t['unknown'])} of the traffic this audit knows nothing that may be quoted: its prompts are "
            f"unreliable or failed. In the upper ends they are as harmful as their certified bounds allow.{rest}"
        )
    if t["bound_only"] > 0:
        told.append(
            f"In {percent(t['bound_only'])} of the traffic no harm was seen, or none that counts: they have an "
            f"upper bound and no estimate.{rest}"
        )
    if data["model"] is not None and not whole:
        told.append(
            f"Too few estimates may be quoted to say what the other prompts are like: the model has only "
            f"{percent(data['model']['covers'])} of the traffic in it, and takes the rest for harmless."
        )
    if not c["from"]:
        told.append(
            "There is no certified band here: the target's own draws are not enough where a second judge read a sample "
            "or the judge's error is known. Run tailrisk forecast to have it from the run's log."
        )
    if t["assumed_harmless"]:
        told.append(
            f"{percent(t['assumed_harmless'])} of the traffic is assumed harmless; this audit says nothing of that."
        )
    return told + [f"Discrepancy: {flag}." for flag in data["flags"]]


def chance(value: float | None) -> str:
    """A probability in words: never 0 % or 100 % where it is neither."""
    if value is None or not math.isfinite(value):
        return "-"
    if 0.9995 <= value < 1:
        return "over 99.9%"
    if 0 < value < 0.001:
        return number(value)
    return f"{100 * value:.0f}%" if value in (0, 1) or 0.1 <= value <= 0.9 else f"{100 * value:.1f}%"


def _two(pair: Sequence[float], as_text: AsText) -> str:
    return f"{as_text(pair[0])} to {as_text(pair[1])}"


def _three(ends: Sequence[float] | None, as_text: AsText) -> str:
    return "-" if not ends else f"{as_text(ends[1])} ({as_text(ends[0])} to {as_text(ends[2])})"


def _queries(value: float | None) -> str:
    """None is infinite."""
    return "never" if value is None else count(value) if value < 1e7 else number(value)


COLUMNS = {
    "certified_low": "certified, lower end",
    "certified_high": "certified, upper end",
    "model_low": "model, lower end",
    "model": "model",
    "model_high": "model, upper end",
    "gumbel": "fresh prompts, straight tail",
    "beta_binomial": "Beta-Binomial",
}


def curve_columns(
    curve: Mapping[str, Sequence[float | None]],
) -> tuple[list[str], list[list[float | None]]]:
    """Names of the curve's columns, and its rows, the number of queries first; a row a decade."""
    names = [name for name in COLUMNS if name in curve]
    step = max((len(curve["n"]) - 1) // max(round(math.log10(curve["n"][-1] or 1)), 1), 1)
    picked = range(0, len(curve["n"]), step)
    return [COLUMNS[n] for n in names], [[curve["n"][i], *(curve[n][i] for n in names)] for i in picked]
