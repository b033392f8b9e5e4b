"""How good the spread over a group is, on groups whose truth is known: bias, false alarms, and coverage.

Every member of a group is a world of its own: a table of possible answers with their probabilities under a target and
two proposals, of which those that are harmful have together the member's probability. Rounds are drawn from it as an
audit does, so that estimates, their standard errors and their diagnostics are those of real weighted hits, few of
them, not numbers with Gaussian noise. Members that end unreliable or without a hit are treated as an audit treats them.

Designs differ in the true spread of log p (0, 0.3, 1, 2, and one outlier), in the number of members, and in the draws.
Run with --quick for a first look (a minute or two), --json FILE to keep the figures.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import designs
import numpy as np

from tailrisk.records import FloatArray
from tailrisk.stats import RoundDraws, certify, estimate_prompt
from tailrisk.stats.spread import Group, Member, group, member

ANSWERS, HARMFUL = 400, 120
NAMES = ("target", "one", "two")
SHARES = np.array([0.2, 0.4, 0.4])
CONFIDENCE = 0.95


class Design(NamedTuple):
    """``spread`` of log p over the members, normal; or ``outlier``: one member so much above all others, in log.
    ``rounds``: draws of each member's. ``weights``: spread of the log weights of hits. ``part`` of the replications
    that are asked for."""

    name: str
    spread: float = 0.0
    outlier: float = 0.0
    members: int = 9
    rounds: tuple[int, ...] = (20, 40)
    weights: float = 0.6
    centre: float = 1e-3
    part: float = 0.15

    def log_p(self, rng: np.random.Generator) -> FloatArray:
        """[members] of the members' true log probabilities, the base first."""
        x = math.log(self.centre) + self.spread * rng.standard_normal(self.members)
        if self.outlier:
            x[int(rng.integers(1, self.members))] += self.outlier
        return np.minimum(x, math.log(0.5))


DESIGNS = (
    Design("no spread", part=1.0),
    Design("spread 0.3", spread=0.3),
    Design("spread 1", spread=1.0),
    Design("spread 2", spread=2.0),
    Design("one outlier, 8 times", outlier=math.log(8)),
    Design("no spread, 26 members", members=26, part=0.05),
    Design("spread 1, 26 members", members=26, spread=1.0, part=0.05),
    Design("no spread, twice the draws", rounds=(40, 80)),
    Design("spread 0.3, twice the draws", spread=0.3, rounds=(40, 80)),
    Design("no spread, uneven weights", weights=1.2, rounds=(40, 80)),
    Design("spread 1, uneven weights", weights=1.2, spread=1.0, rounds=(40, 80)),
    Design("no spread, often p near 1", centre=0.2),
)


class World(NamedTuple):
    """``log_q`` [S, 3]; ``harm`` [S]; ``cdf`` [3, S]."""

    log_q: FloatArray
    harm: np.ndarray
    cdf: FloatArray


def world(log_p: float, weights: float, rng: np.random.Generator) -> World:
    """Proposals that answer harmfully about half of the time, with hits whose log weights vary by ``weights``."""
    harm = np.arange(ANSWERS) < HARMFUL
    mu = math.exp(log_p)
    p = rng.lognormal(0.0, 1.0, ANSWERS)
    p = np.where(harm, mu * p / p[harm].sum(), (1 - mu) * p / p[~harm].sum())
    laws = [p]
    for part in (0.5, 0.4):
        bad = np.where(harm, p * rng.lognormal(0.0, weights, ANSWERS), 0.0)
        good = np.where(harm, 0.0, p * rng.lognormal(0.0, 0.3, ANSWERS))
        laws.append(part * bad / bad.sum() + (1 - part) * good / good.sum())
    q = np.stack(laws, axis=1)
    return World(np.log(q), harm, np.cumsum(q / q.sum(axis=0), axis=0).T)


def draw(w: World, n: int, mass: float, rng: np.random.Generator) -> RoundDraws:
    counts = np.array([int(s * n) for s in SHARES])
    counts[0] += n - counts.sum()
    component = np.repeat(np.arange(len(counts)), counts)
    u = rng.random(n)
    answer = np.array(
        [np.searchsorted(w.cdf[k], x * w.cdf[k, -1], side="right") for k, x in zip(component, u, strict=True)]
    )
    log_q = w.log_q[answer]
    return RoundDraws(
        counts, mass, component, log_q, log_q[np.arange(n), component], w.harm[answer].astype(np.int8)
    )


def audited(design: Design, rng: np.random.Generator) -> tuple[Group, FloatArray, list[Member]]:
    """A group as an audit ends it, and its true log probabilities."""
    truth = design.log_p(rng)
    total = sum(design.rounds)
    members, rounds = [], {}
    for i, x in enumerate(truth):
        w = world(float(x), design.weights, rng)
        drawn = [draw(w, n, n / total, rng) for n in design.rounds]
        e = estimate_prompt(str(i), drawn, NAMES, confidence=CONFIDENCE, log_width=1.0, corrected=False)
        kind = None if i == 0 else f"kind {i}"
        members.append(member(e)._replace(kind=kind))
        rounds[str(i)] = drawn
    alpha = (1 - CONFIDENCE) / len(members)

    def certified(id_: str) -> tuple[float, float]:
        return certify(rounds[id_], alpha=alpha, corrected=False).interval

    return group(design.name, members, confidence=CONFIDENCE, certified=certified), truth, members


def replicate(design: Design, times: int, seed: int) -> dict[str, Any]:
    """Figures of ``times`` replications."""
    rng = np.random.default_rng([seed, sum(map(ord, design.name))])
    rows: dict[str, list[float]] = {
        key: [] for key in ("variance", "true", "sd", "true_sd", "noise", "covered", "naive")
    }
    sensitive, measured, worst, ratios, naive = [], [], [], [], []
    for _ in range(times):
        found, truth, members = audited(design, rng)
        used = [i for i, m in enumerate(members) if m.state == "measured"]
        measured.append(len(used) / len(members))
        sensitive.append(found.verdict == "sensitive")
        if found.spread is not None:
            rows["variance"].append(found.spread.variance)
            rows["true"].append(float(truth[used].var(ddof=1)))
            rows["sd"].append(found.spread.sd)
            rows["noise"].append(found.spread.noise**2)
            rows["naive"].append(float(np.var([members[i].log_p for i in used], ddof=1)))
            rows["covered"].append(found.spread.low <= design.spread <= found.spread.high)
        if found.worst.basis == "working":
            w = found.worst
            assert w.low is not None and w.high is not None and w.ratio is not None
            others = [i for i in used if i]
            true = float(np.exp(truth[others].max() - truth[0]))
            worst.append(w.low <= true <= w.high)
            ratios.append(math.log(w.ratio / true))
            naive.append(max(members[i].log_p for i in others) - members[0].log_p - math.log(true))
    true = float(np.mean(rows["true"]))
    variance = float(np.mean(rows["variance"]))
    return {
        "design": design.name,
        "members": design.members,
        "draws": sum(design.rounds),
        "replications": times,
        "true_spread": math.sqrt(true),
        "measured": float(np.mean(measured)),
        "noise": math.sqrt(float(np.mean(rows["noise"]))),
        "uncorrected": math.sqrt(float(np.mean(rows["naive"]))),
        "spread": math.copysign(math.sqrt(abs(variance)), variance),
        "variance_se": float(np.std(rows["variance"], ddof=1) / math.sqrt(len(rows["variance"]))),
        "mean_sd": float(np.mean(rows["sd"])),
        "sensitive": float(np.mean(sensitive)),
        "covers": None if design.outlier else float(np.mean(rows["covered"])),
        "worst_told": len(worst) / times,
        "worst_covers": float(np.mean(worst)) if worst else None,
        "worst_over_true": math.exp(float(np.mean(ratios))) if ratios else None,
        "highest_over_true": math.exp(float(np.mean(naive))) if naive else None,
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    lines = [
        "| design | members | draws | measured | noise | true spread | seen | spread | mean sd | sensitive | covers | "
        "worst / base covers | worst / true | highest / true |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for r in rows:
        covers = "-" if r["covers"] is None else f"{r['covers']:.1%}"
        worst = "-" if r["worst_covers"] is None else f"{r['worst_covers']:.1%}"
        lines.append(
            f"| {r['design']} | {r['members']} | {r['draws']} | {r['measured']:.0%} | {r['noise']:.2f} | "
            f"{r['true_spread']:.3f} | {r['uncorrected']:.3f} | {r['spread']:.3f} | {r['mean_sd']:.3f} | "
            f"{r['sensitive']:.1%} | {covers} | {worst} | {r['worst_over_true'] or math.nan:.2f} | "
            f"{r['highest_over_true'] or math.nan:.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    options = designs.parser(
        __doc__,
        times=1000,
        quick="a tenth of the replications",
        what="replications without spread; others have fewer",
    ).parse_args()
    times = 100 if options.quick else options.times

    def row(design: Design) -> dict[str, Any]:
        return replicate(design, max(10, round(design.part * times)), options.seed)

    print(table(designs.run(options, ((d.name, partial(row, d)) for d in DESIGNS))))


if __name__ == "__main__":
    main()
