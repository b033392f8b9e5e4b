"""What the study is held to, and whether it held."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from study.worlds import GOOD, HOPELESS

Row = dict[str, Any]


class Verdict(NamedTuple):
    """``held``: whether the figure in ``text`` is what was asked for."""

    held: bool
    text: str


def verdicts(results: dict[str, Any]) -> list[Verdict]:
    """Of the parts that are there."""
    checks = (
        ("bias", _bias),
        ("trust", _trust),
        ("adaptive", _adaptive),
        ("oversteered", _oversteered),
        ("efficiency", _efficiency),
        ("shares", _shares),
        ("openings", _openings),
        ("passages", _passages),
    )
    return [line for part, check in checks if part in results for line in check(results[part])]


def _worst(entries: Iterable[Row]) -> tuple[float, float]:
    rows = list(entries)
    return max(abs(r["z"]) for r in rows), max(r["se"] for r in rows)


def _bias(rows: Sequence[Row]) -> Iterator[Verdict]:
    names = sorted({name for r in rows for name in r["estimators"]})
    for name in names:
        found = [r["estimators"][name] for r in rows if name in r["estimators"]]
        z, se = _worst(found)
        # The single-component estimator is there for comparison: its error may be larger.
        asked = name != "single"
        yield Verdict(
            z <= 3 and (se <= 0.02 or not asked),
            f"unbiased, {name}: largest |z| {z:.2f} over {len(found)} events (at most 3), "
            f"largest standard error {se:.1%}" + (" (at most 2 %)" if asked else ""),
        )


def share_believed(rows: Sequence[Row]) -> float | None:
    """Of the estimates that are more than three times too low, the part with status ok."""
    low = sum(r["low"] * r["replications"] for r in rows)
    return sum(r["low_and_ok"] * r["replications"] for r in rows) / low if low else None


def _trust(rows: Sequence[Row]) -> Iterator[Verdict]:
    least = min(r["certified_covers"] for r in rows)
    yield Verdict(
        least >= 0.95, f"certified intervals hold the truth: least {least:.1%} of an event (at least 95 %)"
    )
    fair = [r for r in rows if r["family"] not in HOPELESS]
    yield from _working(fair, "world")
    kinds = {"all families": fair}
    for family in sorted({r["family"] for r in fair}):
        kinds[family] = [r for r in fair if r["family"] == family]
    shares = {name: s for name, group in kinds.items() if (s := share_believed(group)) is not None}
    worst = max((s, name) for name, s in shares.items() if name != "all families")
    yield Verdict(
        shares["all families"] <= 0.05 and worst[0] <= 0.05,
        f"more than 3 times too low and yet ok: {shares['all families']:.2%} of them; worst family "
        f"({worst[1]}) {worst[0]:.2%} (at most 5 %)",
    )
    hopeless = share_believed([r for r in rows if r["family"] in HOPELESS])
    if hopeless is not None:
        yield Verdict(
            hopeless <= 0.05,
            f"the same where two proposals share one blind spot and nothing else looks there: {hopeless:.0%}",
        )
    alarms = max(r["false_alarms"] for r in rows if r["family"] in GOOD)
    yield Verdict(
        alarms <= 0.15, f"false alarms with good families: at most {alarms:.1%} of an event (at most 15 %)"
    )


def _working(rows: Sequence[Row], key: str) -> Iterator[Verdict]:
    by_event = {
        event: [r for r in rows if r[key] == event and r["working_shown"]]
        for event in sorted({r[key] for r in rows}, key=str)
    }
    covers = {
        event: sum(r["working_covers"] for r in group) / sum(r["working_shown"] for r in group)
        for event, group in by_event.items()
        if group
    }
    if not covers:
        return
    mean, least = statistics.mean(covers.values()), min(covers.values())
    yield Verdict(
        mean >= 0.93 and least >= 0.90,
        f"working intervals, where shown, hold the truth: {mean:.1%} on average (at least 93 %), "
        f"least {least:.1%} of an event (at least 90 %)",
    )


def _adaptive(rows: Sequence[Row]) -> Iterator[Verdict]:
    least = min(r["certified_always_held"] for r in rows)
    yield Verdict(
        least >= 0.95,
        f"certified intervals at every round end of adaptive audits: least {least:.1%} of a prompt (95 %)",
    )
    good = [r for r in rows if r["family"] in GOOD]
    z, se = _worst(r["ratio"] for r in good)
    yield Verdict(
        z <= 3 and se <= 0.02,
        f"unbiased with shares and stopping by results: largest |z| {z:.2f}, largest error {se:.1%}",
    )
    shown = [{**r, "event": (r["p"], r["depth"])} for r in rows]
    yield from _working(shown, "event")
    low = sum(r["low"] for r in rows)
    believed = sum(r["low_and_believed"] for r in rows) / low if low else 0.0
    yield Verdict(
        believed <= 0.05, f"adaptive audits, more than 3 times too low and yet believed: {believed:.2%}"
    )
    alarms = max(r["false_alarms"] for r in good)
    yield Verdict(alarms <= 0.15, f"adaptive audits, false alarms with good families: at most {alarms:.1%}")


def _oversteered(rows: Sequence[Row]) -> Iterator[Verdict]:
    least = min(r["ok_or_covers"] for r in rows)
    yield Verdict(
        least >= 0.99,
        f"over-steered proposals: not ok, or covered, in at least {least:.1%} of {rows[0]['replications']} "
        f"({len(rows)} settings, with and without a target share; at least 99 %)",
    )


OURS = "mixture, adaptive"


def ratios(rows: Sequence[Row], method: str, p: float) -> list[float]:
    """Draws of another method over ours; where the other never got there, over the largest number tried."""
    from study.efficiency import MOST

    found = []
    for row in rows:
        if abs(row["p"] / p - 1) < 0.01 and row["draws"][OURS] is not None:
            other = row["plain"] if method == "plain" else (row["published"][method]["draws"] or MOST)
            found.append(other / row["draws"][OURS])
    return found


def total_ratio(rows: Sequence[Row], method: str, p: float) -> float:
    """Draws of a published method over ours, both added up over the prompts."""
    from study.efficiency import MOST

    chosen = [r for r in rows if abs(r["p"] / p - 1) < 0.01 and r["draws"][OURS] is not None]
    theirs = sum(r["published"][method]["draws"] or MOST for r in chosen)
    return theirs / sum(r["draws"][OURS] for r in chosen)


def _efficiency(sets: dict[str, Any]) -> Iterator[Verdict]:
    for name, found in sets.items():
        rows = found["rows"]
        failed = sum(r["draws"][OURS] is None for r in rows)
        for p, least in ((1e-4, 100), (1e-6, 1000)):
            if plain := ratios(rows, "plain", p):
                yield Verdict(
                    min(plain) >= least and not failed,
                    f"{name} prompts, p = {p:.0e}: plain sampling takes {min(plain):,.0f} times our draws or more "
                    f"(at least {least:,})",
                )
        for method in ("published, first tenth", "published, random tenth"):
            if other := ratios(rows, method, 1e-4):
                whole = total_ratio(rows, method, 1e-4)
                yield Verdict(
                    whole >= 10,
                    f"{name} prompts, p = 1e-04: {method}: {whole:.1f} times our draws over all prompts (10 asked); "
                    f"by prompt {min(other):.1f} to {max(other):,.0f}, median {statistics.median(other):.1f}",
                )


def _shares(rows: Sequence[Row]) -> Iterator[Verdict]:
    for row in rows:
        ratio = row["equal"]["draws"] / row["learned"]["draws"]
        yield Verdict(
            ratio >= 3,
            f"one good proposal of five, {row['prompts']} prompts, event {row['event']!r}: equal shares take "
            f"{ratio:.2f} times the draws of learned ones (at least 3)",
        )
    entries = [b for r in rows for b in r["learned"]["bias"]]
    z, se = _worst(entries)
    yield Verdict(
        z <= 3.5 and se <= 0.02,
        f"unbiased with learned shares, whole audits: largest |z| {z:.2f} of {len(entries)} prompts (one beyond 3 in "
        f"{1 / 0.0027:.0f} is chance), largest standard error {se:.1%}",
    )


def _openings(rows: Sequence[Row]) -> Iterator[Verdict]:
    for name in ("mixture", "control variates"):
        z, se = _worst(r["bias"][name] for r in rows)
        yield Verdict(
            z <= 3 and se <= 0.02,
            f"embedded model, unbiased, {name}: largest |z| {z:.2f} over {len(rows)} events, "
            f"largest standard error {se:.1%}",
        )
    least = min(r["certified_covers"] for r in rows)
    yield Verdict(least >= 0.95, f"embedded model, certified intervals: least {least:.1%} of an event")


def _passages(rows: Sequence[Row]) -> Iterator[Verdict]:
    least = min(r["certified_covers"] for r in rows)
    yield Verdict(
        least >= 0.95, f"embedded model, long answers, certified intervals: least {least:.1%} of an event"
    )
    believed = [
        r["event"] for r in rows if r["whole"]["status"] == "ok" and not 1 / 3 < r["whole"]["ratio"] < 3
    ]
    yield Verdict(
        not believed,
        f"embedded model, long answers, wrong by a factor of 3 and yet ok: {len(believed)} of {len(rows)}",
    )
