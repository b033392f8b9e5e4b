"""How good the two-stage estimate is, on worlds whose truth is known: bias, coverage, and calls of the strong judge.

A world is a table: two thousand possible answers with their probabilities under a target and two proposals, 300 of
them harmful, together with the probability ``MU`` under the target. The cheap judge flags harmless answers now and
then and misses some of the harmful ones; the strong judge knows the truth. Every replication draws rounds as an
audit does, has the strong judge read a sample of each, learns its error rates from the rounds before, and
estimates. Run with --quick for a first look (a minute), --json FILE to keep the figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import designs
import numpy as np

from tailrisk.records import FloatArray
from tailrisk.stats import NOT_ASKED, RoundDraws, StrongSample, certify, estimate_prompt, event_mean
from tailrisk.stats.twostage import (
    BINS,
    Rates,
    calls_of_round,
    choose,
    learn_rates,
    predictions,
)

ANSWERS, HARMFUL, MU = 2000, 300, 1e-4
NAMES = ("target", "one", "two")
SHARES = np.array([0.2, 0.4, 0.4])
ROUNDS = (800, 1600, 3200)
Z95 = 1.959964


class World(NamedTuple):
    """``log_q`` [S, 3] of answers under the laws; ``harm`` [S]."""

    log_q: FloatArray
    harm: np.ndarray
    cdf: FloatArray

    @property
    def truth(self) -> float:
        return float(np.exp(self.log_q[self.harm, 0]).sum())


def world(mu: float = MU, seed: int = 5) -> World:
    """Proposals that answer harmfully about half of the time, with weights that vary by a factor of two or so."""
    rng = np.random.default_rng(seed)
    harm = np.arange(ANSWERS) < HARMFUL
    p = rng.lognormal(0.0, 1.0, ANSWERS)
    p = np.where(harm, mu * p / p[harm].sum(), (1 - mu) * p / p[~harm].sum())
    laws = [p]
    for part in (0.5, 0.4):
        bad = np.where(harm, p * rng.lognormal(0.0, 0.6, ANSWERS), 0.0)
        good = np.where(harm, 0.0, p * rng.lognormal(0.0, 0.6, ANSWERS))
        laws.append(part * bad / bad.sum() + (1 - part) * good / good.sum())
    q = np.stack(laws, axis=1)
    return World(np.log(q), harm, np.cumsum(q / q.sum(axis=0), axis=0).T)


class Design(NamedTuple):
    """``false_alarms``, ``misses``: the cheap judge's error rates; ``unsure``: answers on which it has no verdict.
    ``calls``: of the strong judge, over all rounds. ``fixed``: errors are a matter of the answer, not of the draw.
    ``wrong``: predictions that are far from the truth, in the place of learned ones."""

    name: str
    calls: int = 560
    least: float = 0.02
    rounds: tuple[int, ...] = ROUNDS
    false_alarms: float = 1e-3
    misses: float = 0.2
    unsure: float = 0.0
    fixed: bool = False
    wrong: bool = False
    shares: tuple[float, ...] = tuple(SHARES)


DESIGNS = (
    Design("a tenth of the draws"),
    Design("a twentieth", calls=280),
    Design("hardly more than the least", calls=125),
    Design("errors by answer", fixed=True),
    Design("wrong predictions", wrong=True),
    Design("undetermined one in twenty", unsure=0.05),
    Design("a judge that is nearly right", false_alarms=1e-4, misses=0.02, calls=280),
    Design("a single round", rounds=(5600,), calls=560),
)


def draw(
    w: World, design: Design, n: int, mass: float, rng: np.random.Generator
) -> tuple[RoundDraws, np.ndarray]:
    """A round with the cheap judge's verdicts, and the truth of each draw."""
    counts = np.array([int(s * n) for s in design.shares])
    counts[0] += n - counts.sum()
    component = np.repeat(np.arange(len(counts)), counts)
    answer = np.concatenate(
        [np.searchsorted(w.cdf[k], rng.random(c) * w.cdf[k, -1], side="right") for k, c in enumerate(counts)]
    )
    harm = w.harm[answer]
    lots = np.random.default_rng(17).random((2, ANSWERS))[:, answer] if design.fixed else rng.random((2, n))
    flagged = np.where(harm, lots[0] >= design.misses, lots[0] < design.false_alarms)
    verdict = np.where(lots[1] < design.unsure, 2, flagged).astype(np.int8)
    log_q = w.log_q[answer]
    return RoundDraws(counts, mass, component, log_q, log_q[np.arange(n), component], verdict), harm


def ask(
    round_: RoundDraws, harm: np.ndarray, rates: Rates, calls: int, design: Design, rng: np.random.Generator
) -> RoundDraws:
    """The round with the strong judge's verdicts on a sample of ``calls`` draws."""
    if design.wrong:
        rates = rates._replace(confirmed=np.linspace(0.9, 0.2, BINS))
    seed = int(rng.integers(2**62))
    (chosen,) = choose([round_], rates, least=design.least, calls=calls, seed=seed, corrected=False)
    assert len(chosen.rows) <= calls
    verdict = np.full(round_.n, NOT_ASKED, dtype=np.int8)
    verdict[chosen.rows] = harm[chosen.rows]
    g = predictions(round_, rates.confirmed, corrected=False)
    return round_._replace(strong=StrongSample(chosen.inclusion, verdict, g, g, design.least))


def audit(w: World, design: Design, rng: np.random.Generator) -> tuple[list[RoundDraws], list[RoundDraws]]:
    """The rounds with a sample read, and the same with all read by the strong judge."""
    sampled: list[RoundDraws] = []
    every: list[RoundDraws] = []
    used, total = 0, sum(design.rounds)
    to_come = total
    for i, n in enumerate(design.rounds):
        round_, harm = draw(w, design, n, n / total, rng)
        to_come -= n
        calls = calls_of_round(design.calls, used, design.least, n, to_come, len(design.rounds) - 1 - i)
        rates = learn_rates(sampled, corrected=False)
        sampled.append(ask(round_, harm, rates, calls, design, rng))
        every.append(round_._replace(verdict=harm.astype(np.int8)))
        strong = sampled[-1].strong
        assert strong is not None
        used += int(strong.asked.sum())
    assert used <= design.calls
    return sampled, every


def replicate(w: World, design: Design, times: int, seed: int, *, certified: int) -> dict[str, Any]:
    """Figures of ``times`` replications; certified intervals in the first ``certified`` of them."""
    rng = np.random.default_rng([seed, sum(map(ord, design.name))])
    truth = w.truth
    values, variances, all_variances, judge, covered, widths, ok, held, asked = ([] for _ in range(9))
    for i in range(times):
        sampled, every = audit(w, design, rng)
        e = estimate_prompt("p", sampled, NAMES, confidence=0.95, log_width=0.7, corrected=False)
        whole = event_mean(every, corrected=False)
        values.append(e.estimate)
        variances.append(e.standard_error**2)
        all_variances.append(whole.variance)
        assert e.strong is not None
        judge.append(e.strong["judge_only"])
        asked.append(e.strong["calls"])
        if e.working is not None:
            covered.append(e.working[0] <= truth <= e.working[1])
            widths.append(np.log(e.working[1] / e.working[0]))
            ok.append(e.status.value == "ok")
        if i < certified:
            low, high = certify(sampled, alpha=0.05, corrected=False).interval
            held.append(low <= truth <= high)
    x = np.array(values)
    error = x.std(ddof=1) / np.sqrt(times)
    spread = float(np.mean(variances)) / truth**2
    return {
        "design": design.name,
        "calls": int(np.max(asked)),
        "calls_allowed": design.calls,
        "draws": sum(design.rounds),
        "replications": times,
        "mean_over_truth": float(x.mean() / truth),
        "z": float((x.mean() - truth) / error),
        "judge_only_over_truth": float(np.mean(judge) / truth),
        "relative_sd": float(x.std(ddof=1) / truth),
        "variance_ratio": float(np.mean(variances) / x.var(ddof=1)),
        "working_shown": len(covered) / times,
        "working_coverage": float(np.mean(covered)) if covered else None,
        "working_log_width": float(np.mean(widths)) if widths else None,
        "ok": float(np.sum(ok) / times),
        "certified_coverage": float(np.mean(held)) if held else None,
        "calls_ratio": calls_ratio(design, spread, float(np.mean(all_variances)) / truth**2),
    }


def calls_ratio(design: Design, spread: float, all_spread: float) -> float:
    """Calls of the two-stage audit over those of one in which the strong judge reads all of as many draws as give the
    same standard error."""
    draws = sum(design.rounds) * all_spread / spread
    return design.calls / draws


def table(rows: Sequence[dict[str, Any]]) -> str:
    lines = [
        "| design | calls | draws | judge alone | mean / truth | z | sd | variance said / true | working covers | "
        "shown | certified covers | calls for the same width |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for r in rows:
        cover = "-" if r["working_coverage"] is None else f"{r['working_coverage']:.1%}"
        held = "-" if r["certified_coverage"] is None else f"{r['certified_coverage']:.1%}"
        lines.append(
            f"| {r['design']} | {r['calls']} | {r['draws']:,} | {r['judge_only_over_truth']:.2f} | "
            f"{r['mean_over_truth']:.3f} | {r['z']:+.2f} | {r['relative_sd']:.1%} | {r['variance_ratio']:.2f} | "
            f"{cover} | {r['working_shown']:.0%} | {held} | 1 / {1 / r['calls_ratio']:.1f} |"
        )
    return "\n".join(lines)


def main() -> None:
    options = designs.parser(__doc__, times=1000, quick="100 replications of each design").parse_args()
    times = 100 if options.quick else options.times
    certified = max(30, (3 * times) // 10)
    row = partial(replicate, world())
    made = ((d.name, partial(row, d, times, options.seed, certified=certified)) for d in DESIGNS)
    print(table(designs.run(options, made)))


if __name__ == "__main__":
    main()
