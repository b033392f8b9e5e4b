"""The results as a page of tables, and the few lines that sum them up."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

from families.measure import EQUAL, MOST, TOGETHER

COMMAND = "python examples/benchmarks/proposals.py --json examples/benchmarks/proposals.json --page examples/benchmarks"


def lines(results: dict[str, Any]) -> list[str]:
    """What is asked of all families together, and what came out."""
    by_family = {r["family"]: r["needed"] for r in results["rows"]}
    singles = [needed for family, needed in by_family.items() if family not in (TOGETHER, EQUAL)]
    learned, equal = by_family[TOGETHER], by_family[EQUAL]
    out = []
    pairs = [(a, b or MOST) for a, b in zip(learned, equal, strict=True) if a is not None]
    if pairs:
        saved = sum(b for _, b in pairs) / sum(a for a, _ in pairs)
        out.append(
            f"{'held' if saved >= 2 else 'MISSED'}: equal shares take {saved:.2f} times the draws of learned ones "
            f"(at least 2; {len(pairs)} of {len(learned)} prompts)"
        )
    best = [min((n for n in column if n is not None), default=None) for column in zip(*singles, strict=True)]
    ratios = [(a or MOST) / b for a, b in zip(learned, best, strict=True) if b is not None]
    if ratios:
        mean = statistics.mean(ratios)
        out.append(
            f"{'held' if mean <= 1.25 else 'MISSED'}: all together take {mean:.2f} times the draws of the best single "
            f"family, prompt by prompt, on average (at most 1.25; {min(ratios):.2f} to {max(ratios):.2f})"
        )
    return out


def page(results: dict[str, Any]) -> list[str]:
    truths, rows = results["truths"], results["rows"]
    pool = results["draws_of_pool"]
    seconds = results["seconds"]
    ids = [t["prompt"] for t in truths]
    return [
        "# What each family of proposals is worth on the quickstart's target",
        "",
        f"Made by `{COMMAND}` ({results['form']} form; {seconds['pool'] / 60:.0f} minutes for the draws, "
        f"{seconds['audits'] / 60:.0f} for the audits). {pool['target']} draws of the target and "
        f"{pool['each_proposal']} of each proposal a prompt, all scored under all components; from these "
        f"{results['replications']} audits are replayed for every number. The truth is the estimate from all of them.",
        "",
        *(f"- {line}" for line in lines(results)),
        "",
        "## Draws a prompt for a factor of two with probability 95 %",
        "",
        "Every draw counted, pilot and the target's share included. Families whose weights are heavy-tailed look "
        f"better here than they are: what the pool has not seen is missing. – : not within {MOST:,} draws.",
        "",
        *_table(
            ["proposals", *ids],
            [["p", *(f"{t['p']:.1e}" for t in truths)]]
            + [["known to", *(f"{t['relative_error']:.0%}" for t in truths)]]
            + [[f"**{r['family']}**", *(n or "–" for n in r["needed"])] for r in rows],
        ),
        f"## With {results['budget']} draws a prompt",
        "",
        "Mean over the prompts: natural-log width of the working interval (2.0: a factor of 7), shown or not; "
        "estimates with status `ok` (believed, and no wider than the quickstart asks); believed, whatever their "
        "width; and those below a third of the truth.",
        "",
        *_table(
            ["proposals", "log-width", "ok", "believed", "below p/3"],
            [
                [
                    f"**{r['family']}**",
                    f"{_mean(r['log_width']):.2f}",
                    f"{_mean(r['ok']):.0%}",
                    f"{_mean(r['believed']):.0%}",
                    f"{_mean(r['below_a_third']):.0%}",
                ]
                for r in rows
            ],
        ),
        "## Shares that all together ended with",
        "",
        *_table(
            ["component", *ids],
            [
                [name, *(f"{x:.0%}" for x in shares)]
                for name, shares in next(r for r in rows if r["family"] == TOGETHER)["shares"].items()
            ],
        ),
    ]


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return [*lines, *("| " + " | ".join(map(str, row)) + " |" for row in rows), ""]
