"""The report's section on the judge: what it is, how good it is known to be, and how far the numbers hang on it."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from tailrisk.errors import StoreError
from tailrisk.report import judgefigures, tables
from tailrisk.report.clean import digest, visible
from tailrisk.report.exhibit import Table, table
from tailrisk.report.material import Material
from tailrisk.report.sensitivity import Change, Sensitivity
from tailrisk.report.tables import Row
from tailrisk.report.words import threshold_of
from tailrisk.stats.judgeerror import JudgeBounds, judge_bounds, rogan_gladen
from tailrisk.stats.judging import Confusion
from tailrisk.store import Manifest, other_judges
from tailrisk.store.checkfile import JudgeCheck, kept_check

RATES = {
    "sensitivity": "sensitivity (harm that is judged harm)",
    "specificity": "specificity (safe answers that are judged safe)",
    "agreement": "agreement with the labels",
    "kappa": "Cohen's kappa",
}
VERDICTS = ("safe", "harm", "undetermined")
FLOOR_RATES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2)
FLOOR_TRUTHS = (1e-6, 1e-5, 1e-4, 1e-3)
FOLDER = "judges"
"""In the run folder: one folder for each judge beside the run's own."""


@dataclass(frozen=True)
class Other:
    """Another judge that has read the draws. ``stale``: not all of those that are there now."""

    name: str
    settings: list[tuple[str, str]]
    draws: int
    stale: bool
    rows: Mapping[str, Row]
    agreement: list[tuple[str, list[int]]]
    agree: float | None
    probability: list[tuple[str, list[float]]] | None


@dataclass(frozen=True)
class JudgeView:
    """All that the template shows. ``check`` is None where the judge's error is not known. ``changes``: the listed
    prompts' estimates if answers were judged a little otherwise."""

    settings: list[tuple[str, str]]
    hashes: list[tuple[str, str]]
    check: Annotated[JudgeCheck | None, Field(exclude=True)]
    rates: list[tuple[str, str, str]]
    both_ways: list[tuple[str, str, str]]
    resolution: float | None
    undetermined: tuple[int, int]
    sensitivity: Annotated[Sensitivity | None, Field(exclude=True)]
    bounds: Annotated[tuple[Change, ...], Field(exclude=True)]
    changes: Table
    others: list[Other]
    unread: list[str]
    floor: list[tuple[float, list[float]]]
    figures: Annotated[Mapping[str, str], Field(exclude=True)]


def judge_view(m: Material) -> JudgeView:
    """Errors: StoreError for a damaged file."""
    folder, manifest, listed = m.folder, m.manifest, m.rows
    sensitivity, redact = m.sensitivity, m.redact
    draws = sum(map(sum, m.replay.draws.values()))
    check = kept_check(folder)
    others, unread = _others(folder, {r.prompt_id for r in m.shown}, draws, redact=redact)
    figures: dict[str, str] = {}
    if check is not None and check.content["scores"]["harm"]:
        figures["scores"] = judgefigures.scores(
            check.content["scores"], threshold_of(manifest.config["judge"])
        )
    for i, other in enumerate(others):
        figures[other.name] = judgefigures.two_judges(listed, other.rows, f"judges-{i}")
    bounds: tuple[Change, ...] = ()
    if check is not None and sensitivity is not None:
        bounds = _at_bounds(sensitivity, _error(check, manifest))
    return JudgeView(
        settings=settings_in_words(manifest.config["judge"], redact=redact),
        hashes=[(visible(k), visible(v)) for k, v in manifest.hashes.items() if k.startswith("judge")],
        check=check,
        rates=[] if check is None else _rates(check.content["rates"]),
        both_ways=[] if check is None else _both_ways(check.content),
        resolution=None if check is None else _error(check, manifest).resolution,
        undetermined=(sum(r.undetermined for r in listed), sum(r.draws for r in listed)),
        sensitivity=sensitivity,
        bounds=bounds,
        changes=_changes(m, (() if sensitivity is None else sensitivity.changes) + bounds),
        others=others,
        unread=unread,
        floor=[(f, [(p + f * (1 - p)) / p for p in FLOOR_TRUTHS]) for f in FLOOR_RATES],
        figures=figures,
    )


def _changes(m: Material, changes: Sequence[Change]) -> Table:
    listed = [r.prompt_id for r in m.shown if changes and r.prompt_id in changes[0].values]
    rows = ((prompt, *(change.values[prompt] for change in changes)) for prompt in listed)
    return table(("prompt", *(change.label for change in changes)), rows)


def settings_in_words(judge: Mapping[str, Any], *, redact: bool) -> list[tuple[str, str]]:
    """Name and value of each setting. With ``redact``, of long texts (a judge's prompt) their hash."""
    listed = []
    for key, value in judge.items():
        if value is None or key == "check":
            continue
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        long = redact and len(text) > 200
        listed.append((visible(key.replace("_", " ")), digest(text) if long else visible(text, lines=True)))
    return listed


def error_in_words(folder: Path) -> str:
    """For the head of the page."""
    check = kept_check(folder)
    if check is None:
        return "its error is unknown: all numbers are about what it calls harm"
    n = sum(check.counts)
    return f"measured on {n:,} labelled answers; the numbers are corrected for its error"


def _error(check: JudgeCheck, manifest: Manifest) -> JudgeBounds:
    return judge_bounds(Confusion(*check.counts), float(manifest.config["stop"]["confidence"]))


def _rates(rates: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    return [(name, _value(rates[key]), _interval(rates[key])) for key, name in RATES.items()]


def _both_ways(content: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Label, sensitivity and specificity where the undetermined are taken as safe and as harm."""
    if not any(row["undetermined"] for row in content["counts"].values()):
        return []

    def both(share: Mapping[str, float | None]) -> str:
        return f"{_value(share)} ({_interval(share)})"

    taken = {kind: content[f"undetermined_as_{kind}"] for kind in ("safe", "harm")}
    return [
        (f"undetermined as {kind}", both(rates["sensitivity"]), both(rates["specificity"]))
        for kind, rates in taken.items()
    ]


def _value(share: Mapping[str, float | None]) -> str:
    value = share["value"]
    return "-" if value is None else f"{value:.4f}"


def _interval(share: Mapping[str, float | None]) -> str:
    return f"{share['low']:.4f} to {share['high']:.4f}"


def _at_bounds(sensitivity: Sensitivity, judge: JudgeBounds) -> tuple[Change, Change]:
    """What the estimates would be if the judge's error were as large as the labels allow, either way."""
    (s_low, s_high), f_high = judge.sensitivity, judge.false_positive[1]
    judged = sensitivity.changes[0].values
    least = {p: rogan_gladen(mu, s_high, f_high) or 0.0 for p, mu in judged.items()}
    most = {p: min(mu / s_low, 1.0) if s_low > 0 else 1.0 for p, mu in judged.items()}
    return Change("most false positives", least), Change("most misses", most)


def _others(
    folder: Path, shown: Collection[str], draws: int, *, redact: bool
) -> tuple[list[Other], list[str]]:
    """Those with results, of the ``shown`` prompts, and the names of those that have not read all draws yet."""
    found: list[Other] = []
    unread: list[str] = []
    for judge in other_judges(folder):
        path = folder / FOLDER / judge.name / "estimates.json"
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            audit, table = content["audit"], content["judge"]["agreement"]
            rows = {r.prompt_id: r for r in map(tables.row, content["estimates"]) if r.prompt_id in shown}
            counts = [[int(n) for n in row] for row in table["draws"]]
        except FileNotFoundError:
            unread.append(judge.name)
            continue
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StoreError(f"{path}: cannot be read ({error}); run tailrisk rejudge again") from error
        total = sum(map(sum, counts))
        found.append(
            Other(
                name=judge.name,
                settings=settings_in_words(judge.settings, redact=redact),
                draws=int(audit["draws"]),
                stale=int(audit["draws"]) < draws,
                rows=rows,
                agreement=list(zip(VERDICTS, counts, strict=True)),
                agree=sum(counts[i][i] for i in range(3)) / total if total else None,
                probability=None
                if table["probability"] is None
                else list(zip(VERDICTS, table["probability"], strict=True)),
            )
        )
    return found, unread
