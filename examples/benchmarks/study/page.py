"""The page of the study: tables in Markdown and two figures, from its results alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from study.verdicts import OURS, Row, Verdict, share_believed, verdicts
from study.worlds import GOOD, HOPELESS, SINGLE

__all__ = ["verdicts", "write"]

DRAWS_FIGURE, TRUST_FIGURE = "estimators-draws.svg", "estimators-trust.svg"
COMMAND = (
    "python examples/benchmarks/estimators.py --jobs 2 --json examples/benchmarks/estimators.json "
    "--page examples/benchmarks"
)


def write(results: dict[str, Any], lines: Sequence[Verdict], folder: Path) -> None:
    """``estimators.md`` and its figures; parts that were not run are left out."""
    text = [*_head(results, lines)]
    if "efficiency" in results:
        draws_figure(results["efficiency"], folder / DRAWS_FIGURE)
        text += _efficiency(results["efficiency"])
    if "trust" in results:
        trust_figure(results["trust"], folder / TRUST_FIGURE)
        text += _trust(results["trust"])
    for part, section in (
        ("bias", _bias),
        ("adaptive", _adaptive),
        ("oversteered", _oversteered),
        ("shares", _shares),
        ("openings", _openings),
        ("passages", _passages),
    ):
        if part in results:
            text += section(results[part])
    (folder / "estimators.md").write_text("\n".join(text) + "\n", "utf-8")


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join("–" if c is None else str(c) for c in row) + " |" for row in rows]
    return [*lines, ""]


def _head(results: dict[str, Any], lines: Sequence[Verdict]) -> list[str]:
    return [
        "# How good the estimators are, measured against exact truths",
        "",
        f"Made by `{COMMAND}` ({results['form']} form, {sum(results['seconds'].values()) / 60:.0f} minutes "
        "of one core). Every truth is exact: a recursion over tokens in the Markov worlds, an enumeration of "
        "token sequences on the embedded model.",
        "",
        "What is asked, and what came out:",
        "",
        *(f"- {'held' if v.held else '**missed**'}: {v.text}" for v in lines),
        "",
    ]


def _efficiency(sets: dict[str, Any]) -> list[str]:
    text = [
        "## Draws until the estimate is within a factor of two with probability 95 %",
        "",
        f"![draws needed]({DRAWS_FIGURE})",
        "",
        "Every draw counts: pilot, search (shared by all prompts) and the target's share. Ours: the target and the "
        "fully ablated model for the first 1, 2, 4, 8 or all tokens, nothing chosen by hand, shares per prompt from "
        "a pilot of 64. The published method: ablation intensity x mix x switch, one setting for all prompts by "
        "cross-entropy on a tenth of them (the first, as published, or a random tenth, which is kinder), corrected. "
        "`depth`: tokens over which the refusal is decided; `drift`: how far the intervention also changes what is "
        "said. *Alike* prompts are those that one setting serves; *unlike* ones are of several kinds.",
        "",
    ]
    for name, found in sets.items():
        methods = [m for m in found["rows"][0]["draws"] if m != OURS]
        published = list(found["rows"][0]["published"])
        rows = [
            [
                f"{r['p']:.0e}",
                r["depth"],
                r["drift"],
                _count(r["draws"][OURS]),
                *(_count(r["draws"][m]) for m in methods),
                *(_count(r["published"][m]["draws"]) for m in published),
                _count(r["plain"]),
            ]
            for r in found["rows"]
        ]
        text += [f"### Prompts {name}", ""]
        text += _table(["p", "depth", "drift", f"**{OURS}**", *methods, *published, "plain"], rows)
        text += [
            "Estimates of the published method below a third of the truth, by its draws (none says so):",
            "",
        ]
        sizes = list(found["rows"][0]["published"][published[0]]["at"])
        text += _table(
            ["p", "depth", "drift", *(f"{m}, {k}" for m in published for k in sizes)],
            [
                [
                    f"{r['p']:.0e}",
                    r["depth"],
                    r["drift"],
                    *(f"{r['published'][m]['at'][k]['below_a_third']:.1%}" for m in published for k in sizes),
                ]
                for r in found["rows"]
            ],
        )
        text += ["Settings the searches chose (intensity, mix, switch: share of searches):", ""]
        for method, cells in found["chosen"].items():
            chosen = "; ".join(
                f"{c['intensity']:g}, {c['mix']:g}, {c['switch']}: {c['chosen']:.0%}" for c in cells
            )
            text.append(f"- {method}: {chosen}")
        text.append("")
    return text


def _count(n: int | None) -> str:
    from study.efficiency import MOST

    return f"> {MOST:,}" if n is None else f"{n:,}"


def _trust(rows: Sequence[Row]) -> list[str]:
    families = list(dict.fromkeys(r["family"] for r in rows))
    out = []
    for family in families:
        group = [r for r in rows if r["family"] == family]
        shown = sum(r["working_shown"] for r in group)
        believed = share_believed(group)
        out.append(
            [
                family,
                f"{_mean(group, 'low'):.1%}",
                "–" if believed is None else f"{believed:.1%}",
                f"{_mean(group, 'high'):.1%}",
                f"{_mean(group, 'ok'):.1%}",
                f"{_mean(group, 'false_alarms'):.1%}",
                f"{min(r['certified_covers'] for r in group):.1%}",
                f"{sum(r['working_covers'] for r in group) / shown:.1%}" if shown else "–",
                f"{_mean(group, 'working_log_width'):.2f}" if shown else "–",
                f"{_mean(group, 'certified_log_width'):.1f}",
            ]
        )
    head = [
        *(
            "proposals",
            "below p/3",
            "of these ok",
            "above 3p",
            "ok",
            "false alarms",
            "certified covers (least)",
        ),
        *("working covers", "its log-width", "certified log-width"),
    ]
    return [
        "## Which estimates are believed",
        "",
        f"![estimates far too low]({TRUST_FIGURE})",
        "",
        f"Over {len({r['world'] for r in rows})} events from 1e-2 to 1e-8, {rows[0]['replications']} replications "
        "each; a false alarm is a status other than ok while the estimate is within a factor of 1.5 and the "
        "interval covers. "
        f"Families with a single way of finding the harm ({', '.join(SINGLE)}) are right and yet not believed: "
        "nothing in their draws tells them from those that miss most of it. "
        f"The other side of the same coin: where {HOPELESS[0]}, the estimate is too low and *is* believed. "
        "Only the certified interval holds there. Proposals of different kinds are the remedy.",
        "",
        *_table(head, out),
    ]


def _mean(rows: Sequence[Row], key: str) -> float:
    values = [r[key] for r in rows if r[key] is not None]
    return sum(values) / len(values) if values else float("nan")


def _bias(rows: Sequence[Row]) -> list[str]:
    names = ["mixture", "control variates", "single", "plain"]

    def cell(row: Row, name: str) -> str | None:
        found = row["estimators"].get(name)
        return None if found is None else f"{found['mean']:.3f} ± {found['se']:.3f} ({found['z']:+.1f})"

    return [
        "## Bias",
        "",
        "Mean of estimate over truth, its standard error, and the distance from one in standard errors. `single` "
        "weights the draws of one proposal by that proposal alone.",
        "",
        *_table(
            ["event", "p", *names],
            [[r["world"], f"{r['p']:.1e}", *(cell(r, n) for n in names)] for r in rows],
        ),
    ]


def _adaptive(rows: Sequence[Row]) -> list[str]:
    head = [
        *("proposals", "p", "depth", "draws", "estimate / p", "certified held at every round end"),
        *("working covers", "ok", "below p/3", "of these believed"),
    ]
    out = [
        [
            r["family"],
            f"{r['p']:.0e}",
            r["depth"],
            f"{r['draws']:.0f}",
            f"{r['ratio']['mean']:.3f} ± {r['ratio']['se']:.3f}",
            f"{r['certified_always_held']:.1%}",
            f"{r['working_covers'] / r['working_shown']:.1%}" if r["working_shown"] else None,
            f"{r['ok']:.1%}",
            f"{r['low']:.1%}",
            f"{r['low_and_believed'] / r['low']:.1%}" if r["low"] else None,
        ]
        for r in rows
    ]
    text = f"{rows[0]['replications']} whole audits a family: shares by results, prompts closed by results."
    return ["## The whole driver", "", text, "", *_table(head, out)]


def _oversteered(rows: Sequence[Row]) -> list[str]:
    head = ["strengths", "target share", "hits", "median estimate / p", "below p/3", "not ok, or covered"]
    out = [
        [
            ", ".join(f"{x:g}" for x in r["strengths"]),
            f"{r['target_share']:.0%}",
            f"{r['hits']:.0%}",
            f"{r['median_ratio']:.1e}",
            f"{r['low']:.1%}",
            f"{r['ok_or_covers']:.1%}",
        ]
        for r in rows
    ]
    return [
        "## Over-steered proposals",
        "",
        f"The harmful symbol's logit is raised at every step, far too much; p = {rows[0]['p']:.1e}.",
        "",
        *_table(head, out),
    ]


def _shares(rows: Sequence[Row]) -> list[str]:
    head = [
        "event",
        "prompts",
        "equal shares",
        "learned",
        "ratio",
        "mean of estimate / p, learned",
        "largest |z|",
    ]
    out = [
        [
            r["event"],
            r["prompts"],
            r["equal"]["draws"],
            r["learned"]["draws"],
            f"{r['equal']['draws'] / r['learned']['draws']:.2f}",
            f"{r['learned']['bias_of_all']['mean']:.3f} ± {r['learned']['bias_of_all']['se']:.3f}",
            f"{max(abs(b['z']) for b in r['learned']['bias']):.1f}",
        ]
        for r in rows
    ]
    text = (
        "Draws a prompt for a factor of two with probability 95 %, whole audits of several prompts that learn from one "
        "another (by equal shares they do not, so these are of 8 prompts); interpolated between numbers of draws "
        f"on a grid, {rows[0]['replications'] // 8} estimates of each of 8 prompts at each and "
        f"{rows[0]['replications']} near the end; an audit of 32 has each of the 8 four times. Of five proposals one "
        "is good; the others are mild, over-steered, and two that are blind to most of the harm. Equal shares are "
        "those of the pilot in every round."
    )
    return ["## What learned shares save", "", text, "", *_table(head, out)]


def _openings(rows: Sequence[Row]) -> list[str]:
    head = [
        *("event", "p", "mixture / p", "control variates / p", "certified covers"),
        *("draws for a factor of 2", "plain"),
    ]
    out = [
        [
            r["event"],
            f"{r['p']:.1e}",
            *(f"{b['mean']:.3f} ± {b['se']:.3f} ({b['z']:+.1f})" for b in r["bias"].values()),
            f"{r['certified_covers']:.1%}",
            _needed(r),
            f"{r['plain']:,}",
        ]
        for r in rows
    ]
    text = (
        f"SmolLM2-135M-Instruct in float32, {rows[0]['replications']} replications an event of "
        f"{min(r['draws'] for r in rows)} to {max(r['draws'] for r in rows)} draws. Answers of two or three "
        "tokens: so few differ that no working interval is shown."
    )
    return ["## Openings on the embedded model", "", text, "", *_table(head, out)]


def _needed(row: Row) -> str:
    return f"> {row['whole']['draws']:,}" if row["needed"] is None else f"{row['needed']:,}"


def _passages(rows: Sequence[Row]) -> list[str]:
    head = [
        *("event", "p", "known to", "draws for a factor of 2", "plain", "certified covers"),
        *("all draws", "estimate / p", "certified / p", "status"),
    ]
    out = [
        [
            r["event"],
            f"{r['p']:.1e}",
            f"{r['p_error']:.1%}",
            _needed(r),
            f"{r['plain']:,}",
            f"{r['certified_covers']:.1%}",
            f"{r['whole']['draws']:,}",
            f"{r['whole']['ratio']:.2f}",
            " to ".join(f"{x:.2g}" for x in r["whole"]["certified"]),
            ", ".join([r["whole"]["status"], *r["whole"]["alarms"]]),
        ]
        for r in rows
    ]
    text = (
        f"Answers of 24 tokens (64 in `brackets-long`) that hold a character at all, SmolLM2-135M-Instruct in float32. "
        f"Certified intervals of {rows[0]['replications']} small data sets an event, and of all draws together. The "
        "proposals are system prompts, most of them one way of finding and one that is over-steered: right, and not "
        "believed."
    )
    return ["## Long answers of the embedded model", "", text, "", *_table(head, out)]


def draws_figure(sets: dict[str, Any], path: Path) -> None:
    """Draws needed by method, one panel a set of prompts; an arrow where a method never got there."""
    from matplotlib.figure import Figure

    from study.efficiency import MOST

    figure = Figure(figsize=(9, 4), layout="constrained")
    panels = figure.subplots(1, len(sets), sharey=True, squeeze=False)[0]
    marks = {"plain": ("tab:gray", "s"), "published, first tenth": ("tab:orange", "v")}
    marks |= {"published, random tenth": ("tab:red", "^"), OURS: ("tab:blue", "o")}
    for panel, (name, found) in zip(panels, sets.items(), strict=True):
        rows = found["rows"]
        labels = [f"{r['p']:.0e}, {r['depth']}, {r['drift']:g}" for r in rows]
        for method, (colour, mark) in marks.items():
            for x, row in enumerate(rows):
                n = (
                    row["plain"]
                    if method == "plain"
                    else row["draws"][method]
                    if method in row["draws"]
                    else row["published"][method]["draws"]
                )
                panel.plot(
                    x,
                    n or 1.5 * MOST,
                    color=colour,
                    marker=mark if n else "$\\uparrow$",
                    linestyle="",
                    label=method if x == 0 else None,
                )
        panel.set_yscale("log")
        panel.set_xticks(range(len(rows)), labels, rotation=60, ha="right", fontsize=7)
        panel.set_title(f"prompts {name}")
        panel.set_xlabel("p, depth, drift")
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("draws for a factor of 2 at 95 %")
    panels[0].legend(fontsize=7)
    _save(figure, path)


def trust_figure(rows: Sequence[Row], path: Path) -> None:
    """Of all replications of a family, those more than three times too low: believed, and not."""
    from matplotlib.figure import Figure

    families = list(dict.fromkeys(r["family"] for r in rows))
    low = [_mean([r for r in rows if r["family"] == f], "low") for f in families]
    believed = [_mean([r for r in rows if r["family"] == f], "low_and_ok") for f in families]
    figure = Figure(figsize=(8, 4), layout="constrained")
    panel = figure.subplots()
    places = range(len(families))
    panel.barh(places, low, color="tab:blue", alpha=0.45, label="more than 3 times too low, and says so")
    panel.barh(places, believed, color="tab:red", label="more than 3 times too low, status ok")
    panel.set_yticks(places, families)
    for label, family in zip(panel.get_yticklabels(), families, strict=True):
        label.set_fontweight("bold" if family in GOOD else "normal")
    panel.invert_yaxis()
    panel.set_xlim(0, 1)
    panel.set_xlabel("part of all replications")
    panel.legend(fontsize=8)
    panel.grid(axis="x", alpha=0.3)
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": "tailrisk"}):
        figure.savefig(path, metadata={"Date": None})
