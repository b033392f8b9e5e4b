"""``report.html``: one self-contained page from a run folder; no network, no script but a small sorter.

Every foreign text goes through ``clean.visible`` and the template's automatic escaping. A content security
policy names the hash of the page's only script, so that markup which slipped through could still run nothing.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tailrisk.errors import StoreError
from tailrisk.records import Status
from tailrisk.report import figures, tables, terminal
from tailrisk.report.clean import digest, visible
from tailrisk.report.forecastpart import forecast_parts
from tailrisk.report.groupfigures import groups_section
from tailrisk.report.heatmap import heat_map
from tailrisk.report.judge import FLOOR_TRUTHS, VERDICTS, JudgeView, error_in_words, judge_view, threshold_of
from tailrisk.report.replay import Hit, Replay, read
from tailrisk.report.searches import search_rows
from tailrisk.report.sensitivity import Tally
from tailrisk.report.tables import Row
from tailrisk.store import read_manifest
from tailrisk.store.atomic import replacing

if TYPE_CHECKING:
    from tailrisk.store import Manifest

FIRST_ROUND = {"mixture": "pilot", "paper": "search", "search": "search"}
"""Method -> what its round 0 is called."""
MOST_PROMPTS = 1000
"""Prompts that are listed one by one, the largest upper ends; a browser does not show a hundred thousand rows."""


def render_report(
    run_folder: Path, *, redact: bool = False, summary: Mapping[str, Any] | None = None
) -> Path:
    """Write ``report.html`` into the run folder and return its path.

    ``redact`` puts a hash and a length in place of every answer. ``summary`` is what estimates.json holds;
    give it for a run that has none yet because it is still going on.

    Raises:
        StoreError: not a run folder, no estimates yet, or a damaged log.
    """
    folder = Path(run_folder)
    manifest = read_manifest(folder)
    summary = summary if summary is not None else read_summary(folder)
    listed = tables.rows(summary["estimates"])
    corrected = bool((summary.get("audit") or {}).get("corrected"))
    shown = {r.prompt_id for r in listed[:MOST_PROMPTS]}
    tally = Tally(threshold_of(manifest.config["judge"]))
    replayed = read(folder, manifest.component_names, corrected=corrected, shown=shown, seen=tally.add)
    judged = judge_view(
        folder,
        manifest,
        listed,
        tally.done(tuple(replayed.failures)),
        draws=sum(map(sum, replayed.draws.values())),
        redact=redact,
    )
    page = (
        _environment()
        .get_template("report.html.j2")
        .render(**_context(folder, manifest, summary, listed, replayed, judged, redact=redact))
    )
    path = folder / "report.html"
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8", errors="backslashreplace")
    return path


def read_summary(folder: Path) -> dict[str, Any]:
    """estimates.json of a finished run."""
    path = folder / "estimates.json"
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StoreError(f"{folder}: no estimates.json yet; run the audit to its end first") from None
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: cannot be read ({error}); resume the audit to write it again") from error
    if not isinstance(summary, dict) or not isinstance(summary.get("estimates"), list):
        raise StoreError(f"{path}: holds no list of estimates; resume the audit to write it again")
    return summary


@dataclass(frozen=True)
class Evidence:
    """The heaviest hits of one prompt, ready for the page."""

    row: Row
    hits: list[tuple[Hit, str]]


def _context(
    folder: Path,
    manifest: Manifest,
    summary: Mapping[str, Any],
    listed: Sequence[Row],
    replayed: Replay,
    judged: JudgeView,
    *,
    redact: bool,
) -> dict[str, Any]:
    script, shown = _asset("sort.js"), listed[:MOST_PROMPTS]
    policy = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return {
        "name": visible(folder.name),
        "style": _asset("style.css"),
        "script": script,
        "script_hash": policy,
        "manifest": manifest,
        "config": manifest.config,
        "totals": summary.get("audit") or {},
        "rows": shown,
        "prompts": len(listed),
        "grouped": any(r.group for r in shown),
        "claim": tables.claim(listed),
        "event": event_in_words(manifest.config["judge"]),
        "judge": judged,
        "judge_error": error_in_words(folder),
        "floor_truths": FLOOR_TRUTHS,
        "verdicts": VERDICTS,
        "clean": visible,
        "statuses": tables.by_status(listed),
        "meanings": tables.STATUS_MEANING,
        "heat": heat_map(manifest.component_names, shown),
        "groups": groups_section(summary.get("groups"), listed),
        "method": method_of(manifest),
        "review": summary.get("review"),
        "reviewed": tables.rows((summary.get("review") or {}).get("estimates", ())),
        "before": {r.prompt_id: r for r in listed},
        "searches": search_rows(summary.get("search")),
        "replay": replayed,
        "evidence": _evidence(shown, replayed, redact=redact),
        "redact": redact,
        **forecast_parts(folder, summary),
        "figures": _figures(shown, replayed, first=FIRST_ROUND.get(method_of(manifest), "pilot")),
        "checks": checks(summary.get("audit") or {}, replayed, bounded=any(r.target_draws for r in listed)),
        "facts": facts(manifest, summary.get("audit") or {}, replayed),
        "t": tables,
        "Status": Status,
        "most_rows": figures.MOST_ROWS,
        "config_text": visible(json.dumps(manifest.config, indent=2, ensure_ascii=False), lines=True),
    }


def method_of(manifest: Manifest) -> str:
    """The name of the run's method."""
    return (manifest.config.get("method") or {}).get("kind", "mixture")


def _figures(listed: Sequence[Row], replayed: Replay, *, first: str) -> dict[str, str]:
    drawn = {}
    if any(r.status is not Status.FAILED for r in listed):
        drawn["forest"] = figures.forest(listed)
        drawn["diagnostics"] = figures.diagnostics(listed)
    if replayed.draws:
        drawn["budget"] = figures.budget(replayed.draws, replayed.rounds, first=first)
    if len(replayed.log_w):
        drawn["weights"] = figures.weights(replayed.log_w, replayed.log_w_hits, replayed.bound)
    return drawn


def _evidence(listed: Sequence[Row], replayed: Replay, *, redact: bool) -> list[Evidence]:
    def shown(text: str) -> str:
        return digest(text) if redact else visible(text, lines=True)

    return [
        Evidence(r, [(h, shown(h.text)) for h in replayed.hits[r.prompt_id]])
        for r in listed
        if r.prompt_id in replayed.hits
    ]


def event_in_words(judge: Mapping[str, Any]) -> str:
    """What counts as harm in this run."""
    match judge["kind"]:
        case "refusal":
            least = judge["min_words"]
            return f"the answer complies: by fixed rules it does not refuse and has at least {least} words"
        case "regex":
            case = "letter case ignored" if judge.get("ignore_case", True) else "letter case as given"
            return f"the answer matches the pattern {visible(judge['pattern'])} ({case})"
        case "python":
            function, least = visible(judge["function"]), judge["threshold"]
            return f"the function {function} gives the answer a score of at least {least}"
        case "endpoint":
            asked, model = visible(judge["rubric"].replace("_", "/")), visible(judge["model"])
            trait = f" ({visible(judge['trait'])})" if judge.get("trait") else ""
            least = judge["threshold"]
            score = "the rubric's threshold" if least is None else f"{least:g}"
            return f"the model {model}, asked by the rubric {asked}{trait}, gives a score of at least {score}"
        case "strongreject":
            model, least = _model_in_words(judge), judge["threshold"]
            return f"the fine-tuned StrongREJECT judge ({model}) gives the answer a score of at least {least} of 1"
        case "rubric":
            model, rubric, least = _model_in_words(judge), judge["rubric"], f"at least {judge['threshold']}"
            if rubric == "trait":
                return (
                    f"the model {model}, asked for the trait {visible(judge['trait'])}, gives {least} of 100"
                )
            if rubric == "coherence":
                return f"the model {model}, asked for the answer's coherence, gives {least} of 100"
            return f"the model {model}, asked with the StrongREJECT rubric, gives the answer {least} of 1"
        case "classifier":
            model, least = _model_in_words(judge), judge["threshold"]
            harm = f"the label {visible(str(judge['label']))}" if judge["format"] == "classes" else "harm"
            return (
                f"the classifier {model} ({judge['format']}) gives {harm} a probability of at least {least}"
            )
        case "all" | "any":
            inner = "; ".join(f"({event_in_words(one)})" for one in judge["judges"])
            return f"{'all' if judge['kind'] == 'all' else 'at least one'} of these hold: {inner}"
        case kind:
            return f"the judge of kind {visible(str(kind))} calls the answer harm"


def _model_in_words(judge: Mapping[str, Any]) -> str:
    adapter = f" with {visible(judge['adapter'])}" if judge.get("adapter") else ""
    return f"{visible(judge['model'])}{adapter}"


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


def facts(manifest: Manifest, totals: Mapping[str, Any], replayed: Replay) -> list[tuple[str, str]]:
    """Name and value of what is known of the run, for the last section of the page."""
    listed = [
        ("begun", manifest.created),
        ("seed", str(manifest.config["run"]["seed"])),
        ("draws", f"{sum(map(sum, replayed.draws.values())):,} of {manifest.config['budget']['draws']:,}"),
        ("generated tokens", f"{replayed.tokens:,}"),
        ("time in workers", f"{replayed.seconds:,.0f} s"),
        ("draws the judge failed on", str(replayed.judge_errors)),
    ]
    if calls := terminal.judge_line(totals):
        name, _, value = calls.partition(": ")
        listed.append((name, value))
    listed += [(key.replace("_", " "), visible(_plain(value))) for key, value in sorted(totals.items())]
    listed += [(f"version of {name}", visible(version)) for name, version in manifest.versions.items()]
    listed += [(f"hash of {name}", visible(value)) for name, value in manifest.hashes.items()]
    listed.append(
        ("prompt set", f"{len(manifest.prompts)} prompts, {visible(_plain(manifest.identity['prompts']))}")
    )
    return listed


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(inner)}" for key, inner in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value))
    return "-" if value is None else str(value)


def _asset(name: str) -> str:
    return resources.files("tailrisk.report").joinpath("templates", name).read_text(encoding="utf-8")


def _environment() -> Any:
    import jinja2

    loader = jinja2.FunctionLoader(_asset)
    return jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
