"""Section 8: what was planned and what was spent, on which prompts, components and rounds, and what was lost."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tailrisk.report import budgetfigures
from tailrisk.report.clean import visible
from tailrisk.report.eventlog import EventLog
from tailrisk.report.exhibit import Cell, Figure, Table, table
from tailrisk.report.material import Material
from tailrisk.report.replay import Spent
from tailrisk.report.tables import number, percent
from tailrisk.report.timeline import timeline

MOST_DATA = 200
HEAD = ("draws planned", "draws", "share of the draws", "tokens", "seconds in workers", "hits")


@dataclass(frozen=True, kw_only=True)
class Budget:
    """``limits``: what was allowed and what was spent of it; ``lost``: work that no estimate rests on."""

    limits: tuple[tuple[str, str], ...]
    lost: tuple[tuple[str, str], ...]
    by_component: Table
    by_round: Table
    by_prompt: Table
    figures: tuple[Figure, ...]


def budget_view(m: Material) -> Budget:
    r = m.replay
    names = [visible(name) for name in m.manifest.component_names]
    prompts = sorted(r.by_prompt.items(), key=lambda pair: (-pair[1].draws, pair[0]))
    figures = (_allocation(m), _busy(m.events))
    return Budget(
        limits=tuple(_limits(m)),
        lost=tuple(_lost(m)),
        by_component=_spent("component", zip(names, r.by_component, strict=False)),
        by_round=_spent("round", ((_round(m, n), spent) for n, spent in r.by_round.items())),
        by_prompt=_spent("prompt", ((visible(p), spent) for p, spent in prompts)),
        figures=tuple(f for f in figures if f is not None),
    )


def _limits(m: Material) -> list[tuple[str, str]]:
    r, limits = m.replay, m.config["budget"]
    drawn, planned = sum(s.draws for s in r.by_component), sum(s.planned for s in r.by_component)
    told = [
        ("draws", f"{drawn:,} of {limits['draws']:,} that the budget allows; {planned:,} were planned"),
        (
            "generated tokens",
            f"{r.tokens:,} of {limits['tokens']:,}"
            if limits.get("tokens")
            else f"{r.tokens:,}, without a limit",
        ),
        ("time in workers", _worked(r.seconds, drawn)),
    ]
    if m.events.sittings:
        sittings = "1 sitting" if len(m.events.sittings) == 1 else f"{len(m.events.sittings)} sittings"
        told.append(("time of the driver", f"{m.events.seconds:,.0f} s in {sittings}"))
    if judge := m.totals.get("judge"):
        told.append(("judge", f"{judge['calls']:,} calls for {judge['answers']:,} answers"))
    if strong := m.totals.get("strong"):
        told.append(("strong judge", f"{strong['calls']:,} of {strong['calls_allowed']:,} calls"))
    return told


def _worked(seconds: float, draws: int) -> str:
    return f"{seconds:,.0f} s, {number(1000 * seconds / draws) if draws else '-'} s a thousand draws"


def _lost(m: Material) -> list[tuple[str, str]]:
    events, (batches, draws) = m.events.counts, m.replay.failed
    searched = (m.totals.get("search") or {}).get("draws", 0)
    told = [
        ("draws for the search alone", f"{searched:,}" if searched else ""),
        ("batches that failed for good", f"{batches:,}, {draws:,} draws" if batches else ""),
        (
            "batches that came twice",
            f"{m.totals['duplicates']:,}, counted once" if m.totals.get("duplicates") else "",
        ),
        ("of them with other draws", f"{m.totals['mismatches']:,}" if m.totals.get("mismatches") else ""),
        ("answers that the judge failed on", f"{m.replay.judge_errors:,}" if m.replay.judge_errors else ""),
        ("batches tried again after an error", _many(events, "batch_retried")),
        ("batches cut short by a lost worker", f"{m.events.cut_short:,}" if m.events.cut_short else ""),
        ("batches given up", _many(events, "batch_given_up")),
        ("workers that were lost or let go", _many(events, "worker_gone")),
        ("nodes that were lost", _many(events, "node_lost")),
        ("sittings that were interrupted or stopped", _many(events, "interrupted", "stopped")),
    ]
    found = [(name, value) for name, value in told if value]
    return found or [("lost work", "none is recorded")]


def _many(events: dict[str, int], *names: str) -> str:
    count = sum(events.get(name, 0) for name in names)
    return f"{count:,}" if count else ""


def _spent(what: str, listed: Iterable[tuple[str, Spent]]) -> Table:
    rows = list(listed)
    all_draws = sum(s.draws for _, s in rows)

    def cells(name: str, s: Spent) -> tuple[Cell, ...]:
        share = percent(s.draws / all_draws if all_draws else None)
        return name, s.planned, s.draws, share, s.tokens, round(s.seconds, 1), s.hits

    return table((what, *HEAD), (cells(name, s) for name, s in rows), most=MOST_DATA)


def _round(m: Material, n: int) -> str:
    return m.first_round if n == 0 else str(n)


def _allocation(m: Material) -> Figure | None:
    r = m.replay
    if not r.draws:
        return None
    order = sorted(r.draws, key=lambda p: (-sum(r.draws[p]), p))
    widths = [] if m.running is None else m.running.widths
    wide = {w.round: w for w in widths}
    more = (
        " Below: the half-width of the prompts' intervals over their estimates (from the spread of each round's "
        "own draws), the largest and the median, of the prompts with hits by then."
        if widths
        else ""
    )
    known = [wide.get(n) for n in r.rounds]
    told = [
        ("largest half-width", [None if w is None else w.largest for w in known]),
        ("median half-width", [None if w is None else w.median for w in known]),
    ]
    return Figure(
        name="allocation",
        question="Where did the draws go, and what did they do for the intervals?",
        reading=_told(m) + more,
        data=table(
            ("prompt", *(f"round {n}" if n else m.first_round for n in r.rounds), "all"),
            [
                *((name, *values, None) for name, values in told if widths),
                *((visible(p), *r.draws[p], sum(r.draws[p])) for p in order),
            ],
            most=MOST_DATA,
        ),
        draw=lambda: budgetfigures.allocation(r.draws, r.rounds, widths, first=m.first_round),
    )


def _told(m: Material) -> str:
    if m.method == "paper":
        return (
            "The search, on some of the prompts, chose the one setting that all estimates are drawn with; no estimate "
            "rests on its draws."
        )
    if m.method == "search":
        return (
            "The search chose each prompt's components; no estimate rests on its draws. After it each round gives "
            "draws to the prompts whose intervals gain most by them."
        )
    return "After the pilot each round gives draws to the prompts whose intervals gain most by them."


def _busy(events: EventLog) -> Figure | None:
    found = timeline(events)
    if found is None:
        return None
    more = f" {found.left_out:,} more workers are not shown." if found.left_out else ""
    pauses = [s.pause for s in found.sittings[1:]]
    taken = f" Taken up again after {', '.join(f'{p:,.0f} s' for p in pauses[:5])}." if pauses else ""
    return Figure(
        name="busy",
        question="Were the workers busy?",
        reading="When each worker had a batch in hand, the lane high and dark where it was busy all the time, with the "
        "share of the whole time beside its name, and the draws a second of all of them. From run.log, in whole "
        f"seconds: a batch is taken to have lasted as long as its worker says.{more}{taken}",
        data=table(
            ("worker", "batches", "draws", "busy seconds", "share of the time"),
            ((visible(lane.name), lane.batches, lane.draws, round(lane.seconds, 1), percent(lane.share))
             for lane in found.lanes),
        ),
        draw=lambda: budgetfigures.busy(found),
    )  # fmt: skip
