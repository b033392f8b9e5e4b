"""How often a comparison of two audits is wrong, and what it finds, on worlds whose truth is known.

A prompt is a table: two thousand possible answers, 300 of them harmful, with their probabilities under a target and two
proposals. Every replication draws two audits of the same prompts in rounds, each prompt's through the estimator with
its diagnostics and its status, and compares them. Version B has the same prompts, some of them with another probability
of harm. Run with --quick for a first look, --json FILE to keep the figures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import designs
import numpy as np

from tailrisk.records import FloatArray, Status
from tailrisk.stats import RoundDraws, estimate_prompt
from tailrisk.stats.compare import Answer, Basis, Comparison, compare
from tailrisk.stats.sides import Side

ANSWERS, HARMFUL = 2000, 300
NAMES = ("target", "one", "two")
SHARES = np.array([0.25, 0.375, 0.375])
PROBABILITIES = (0.1, 0.03, 0.01, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5, 1e-5, 1e-6)
BLIND = 1e-7
"""Probability of the prompts that no proposal finds."""


class World(NamedTuple):
    """``log_q`` [S, 3] of the answers under the laws, harmful ones first; ``cdf`` [3, S]."""

    log_q: FloatArray
    cdf: FloatArray

    @property
    def truth(self) -> float:
        return float(np.exp(self.log_q[:HARMFUL, 0]).sum())


@cache
def world(mu: float, uneven: float, seed: int) -> World:
    """``uneven``: standard deviation of the log weights of harmful answers. Under the proposals a third to a half of
    the answers is harmful, but for ``BLIND``, where they are no better than the target."""
    rng = np.random.default_rng(seed)
    harm = np.arange(ANSWERS) < HARMFUL
    p = rng.lognormal(0.0, 1.0, ANSWERS)
    p = np.where(harm, mu * p / p[harm].sum(), (1 - mu) * p / p[~harm].sum())
    laws = [p]
    for part in (0.5, 0.35):
        bad = np.where(harm, p * rng.lognormal(0.0, uneven, ANSWERS), 0.0)
        good = np.where(harm, 0.0, p * rng.lognormal(0.0, 0.5, ANSWERS))
        part = mu if mu <= BLIND else part
        laws.append(part * bad / bad.sum() + (1 - part) * good / good.sum())
    q = np.stack(laws, axis=1)
    return World(np.log(q), np.cumsum(q / q.sum(axis=0), axis=0).T)


def audit(w: World, rounds: Sequence[int], rng: np.random.Generator) -> Side:
    """One prompt's audit."""
    drawn = []
    for n in rounds:
        counts = (SHARES * n).astype(np.int64)
        counts[0] += n - counts.sum()
        component = np.repeat(np.arange(len(counts)), counts)
        answer = np.concatenate(
            [np.searchsorted(w.cdf[k], rng.random(c) * w.cdf[k, -1], "right") for k, c in enumerate(counts)]
        )
        log_q = w.log_q[answer]
        verdict = (answer < HARMFUL).astype(np.int8)
        own = log_q[np.arange(n), component]
        drawn.append(RoundDraws(counts, n / sum(rounds), component, log_q, own, verdict))
    estimate = estimate_prompt("p", drawn, NAMES, confidence=0.95, log_width=1.0, corrected=False)
    return Side.of(estimate, drawn, corrected=False)


class Design(NamedTuple):
    """``factors``: probability of harm in B over that in A, prompt by prompt, repeated. ``blind``: prompts of which
    nothing is found; in B the first ``risen`` of them are found often."""

    name: str
    factors: tuple[float, ...] = (1.0,)
    rounds: tuple[int, ...] = (64, 128, 256)
    uneven: float = 0.7
    probabilities: tuple[float, ...] = PROBABILITIES
    blind: int = 2
    risen: int = 0

    def pairs(self) -> list[tuple[World, World]]:
        """(A, B) of each prompt."""
        found = []
        for i, p in enumerate(self.probabilities):
            factor = self.factors[i % len(self.factors)]
            found.append((world(p, self.uneven, i), world(min(p * factor, 0.5), self.uneven, i)))
        for i in range(self.blind):
            after = 0.4 if i < self.risen else BLIND
            found.append((world(BLIND, self.uneven, 100 + i), world(after, self.uneven, 100 + i)))
        return found


DESIGNS = (
    Design("the same twice"),
    Design("the same, few draws", rounds=(32, 32, 32)),
    Design("the same, uneven weights", uneven=1.3),
    Design("the same, 3 prompts", probabilities=(0.03, 1e-3, 1e-5), blind=0),
    Design("all 1.5 times", factors=(1.5,)),
    Design("all 3 times", factors=(3.0,)),
    Design("one in three 1.5 times", factors=(1.5, 1.0, 1.0)),
    Design("one in three 3 times", factors=(3.0, 1.0, 1.0)),
    Design("one in three 10 times", factors=(10.0, 1.0, 1.0), probabilities=PROBABILITIES[2:]),
    Design("up and down 3 times", factors=(3.0, 1 / 3)),
    Design("found nowhere, then everywhere", blind=6, risen=3, probabilities=PROBABILITIES[:6]),
)


class Seen(NamedTuple):
    """One replication. ``wrong``: a verdict on a prompt where nothing changed, or in the other direction; ``overall``:
    the same of the whole. ``alone``: intervals that hold, of so many, for prompts with two working intervals; ``ends``:
    for the others. ``together``: all hold at once, the whole's too. ``found``: changes that are shown, of so many."""

    wrong: bool
    overall: bool
    whole_found: bool
    alone: tuple[int, int]
    difference: tuple[int, int]
    ends: tuple[int, int]
    together: bool
    ratios_together: bool
    whole: tuple[int, int]
    found: tuple[int, int]
    quoted: int


def holds(interval: tuple[float, float], truth: float) -> bool:
    return interval[0] <= truth <= interval[1]


def look(result: Comparison, pairs: Sequence[tuple[World, World]]) -> Seen:
    truths = [(a.truth, b.truth) for a, b in pairs]
    right = [
        Answer.WORSE if b > a * 1.0001 else Answer.BETTER if a > b * 1.0001 else Answer.NONE
        for a, b in truths
    ]
    shown = (Answer.WORSE, Answer.BETTER)
    answers = [c.answer for c in result.prompts]
    wrong = any(x in shown and x is not r for x, r in zip(answers, right, strict=True))
    working = [c.basis is Basis.WORKING for c in result.prompts]
    ratios = [holds(c.ratio.interval, b / a) for c, (a, b) in zip(result.prompts, truths, strict=True)]
    differences = [
        holds(c.difference.interval, b - a) for c, (a, b) in zip(result.prompts, truths, strict=True)
    ]
    together = [holds(c.ratio.simultaneous, b / a) for c, (a, b) in zip(result.prompts, truths, strict=True)]
    apart = [
        holds(c.difference.simultaneous, b - a) for c, (a, b) in zip(result.prompts, truths, strict=True)
    ]
    overall_wrong, whole_found, whole = False, False, (0, 0)
    if result.difference is not None and result.ratio is not None:
        quoted = [t for t, w in zip(truths, working, strict=True) if w]
        change = float(np.mean([b - a for a, b in quoted]))
        log = float(np.mean([np.log(b / a) for a, b in quoted]))
        up = {
            x: Answer.WORSE if x > 1e-9 else Answer.BETTER if x < -1e-9 else Answer.NONE
            for x in (change, log)
        }
        overall_wrong = any(
            o.answer in shown and o.answer is not up[x]
            for o, x in ((result.difference, change), (result.ratio, log))
        )
        whole_found = result.ratio.answer in shown or result.difference.answer in shown
        kept = [
            holds(result.difference.change.interval, change),
            holds(result.ratio.change.interval, np.exp(log)),
        ]
        whole = (sum(kept), 2)
        apart.append(holds(result.difference.change.simultaneous, change))
        together.append(holds(result.ratio.change.simultaneous, float(np.exp(log))))
    changed = [r in shown for r in right]
    return Seen(
        wrong,
        overall_wrong,
        whole_found,
        (sum(h for h, w in zip(ratios, working, strict=True) if w), sum(working)),
        (sum(h for h, w in zip(differences, working, strict=True) if w), sum(working)),
        (sum(h for h, w in zip(ratios, working, strict=True) if not w), len(working) - sum(working)),
        all(together) and all(apart),
        all(together),
        whole,
        (sum(x is r and c for x, r, c in zip(answers, right, changed, strict=True)), sum(changed)),
        sum(working),
    )


def replicate(design: Design, times: int, seed: int, audited: Callable[..., Side] = audit) -> dict[str, Any]:
    rng = np.random.default_rng([seed, sum(map(ord, design.name))])
    pairs, seen = design.pairs(), []
    statuses = dict.fromkeys(map(str, Status), 0)
    for _ in range(times):
        sides = [(audited(a, design.rounds, rng), audited(b, design.rounds, rng)) for a, b in pairs]
        for pair in sides:
            for side in pair:
                statuses[str(side.estimate.status)] += 1
        seen.append(look(compare(sides), pairs))

    def share(name: str) -> float | None:
        held, all_ = np.sum([getattr(s, name) for s in seen], axis=0)
        return float(held / all_) if all_ else None

    return {
        "design": design.name,
        "prompts": len(pairs),
        "draws": sum(design.rounds),
        "replications": times,
        "quoted": float(np.mean([s.quoted for s in seen]) / len(pairs)),
        "wrong_prompt": float(np.mean([s.wrong for s in seen])),
        "wrong_whole": float(np.mean([s.overall for s in seen])),
        "wrong_any": float(np.mean([s.wrong or s.overall for s in seen])),
        "ratio_coverage": share("alone"),
        "difference_coverage": share("difference"),
        "ends_coverage": share("ends"),
        "whole_coverage": share("whole"),
        "simultaneous_ratios": float(np.mean([s.ratios_together for s in seen])),
        "simultaneous_all": float(np.mean([s.together for s in seen])),
        "power": share("found"),
        "whole_found": float(np.mean([s.whole_found for s in seen])),
        "statuses": statuses,
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    columns = (
        ("both quoted", "quoted"),
        ("wrong on a prompt", "wrong_prompt"),
        ("wrong on the whole", "wrong_whole"),
        ("ratio covers", "ratio_coverage"),
        ("difference covers", "difference_coverage"),
        ("ends cover", "ends_coverage"),
        ("whole covers", "whole_coverage"),
        ("all ratios hold", "simultaneous_ratios"),
        ("ratios and differences hold", "simultaneous_all"),
        ("changes found", "power"),
        ("whole found", "whole_found"),
    )
    lines = [
        "| design | prompts | draws | " + " | ".join(name for name, _ in columns) + " |",
        "|---|---:|---:|" + "---:|" * len(columns),
    ]
    for r in rows:
        cells = ["-" if r[key] is None else f"{r[key]:.1%}" for _, key in columns]
        lines.append(f"| {r['design']} | {r['prompts']} | {r['draws']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    options = designs.parser(__doc__, times=400, quick="50 replications of each design").parse_args()
    times = 50 if options.quick else options.times
    print(
        table(designs.run(options, ((d.name, partial(replicate, d, times, options.seed)) for d in DESIGNS)))
    )


if __name__ == "__main__":
    main()
