"""How good the forecast is, on populations of prompts whose probabilities are known: coverage, error, refusals.

A population is given by its quantile function. An audit of ``PROMPTS`` prompts sees each p through an estimate with a
relative error of 0.2 to 1 (log-normal, mean p; or Poisson hits), sees no hit of some, leaves one in fifty unreliable,
and has 200 draws of the target for each. Truths are exact: the probability that one in n fresh prompts exceeds is the
quantile at 1/n, and P(at least one) among n is 1 - (1 - mu)^n with mu integrated numerically. The forecast is held
against three others that see the same estimates: the published line through the top ten estimates (Jones et al.), a
log-normal fit, and the empirical distribution of the estimates (the method of arXiv 2604.22167); and against lines
through draws that are not de-noised. Run with --quick for a first look, --json FILE to keep the figures.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import designs
import numpy as np
from scipy import stats
from scipy.special import expit, logit

from tailrisk.records import FloatArray
from tailrisk.stats.forecast import Evidence, Plain, plain_ends, prompt_confidence
from tailrisk.stats.forecast.evidence import centre_and_scale
from tailrisk.stats.forecast.extrapolate import extrapolate, gather, tops_of
from tailrisk.stats.forecast.mix import certified_band
from tailrisk.stats.forecast.population import Draw, Drawer
from tailrisk.stats.forecast.tail import fit_line, probability, psi_of

PROMPTS, TARGET_DRAWS, DRAWS = 300, 200, 80
RATIOS = np.array([10.0, 30.0, 100.0])
UNSEEN = 1e-8
"""The proposals find an answer of about this probability once."""
UNRELIABLE = 0.02
NOISES = ("log-normal", "hits")


class World(NamedTuple):
    """``above`` share u -> the p that this share of prompts exceeds; ``size`` of a group, ``within`` its spread of
    log p beside the spread ``between`` groups (log-normal worlds with groups only)."""

    name: str
    above: Callable[[FloatArray], FloatArray]
    size: int = 1
    between: float = 0.0
    within: float = 0.0

    def draw(self, rng: np.random.Generator, prompts: int) -> tuple[FloatArray, np.ndarray]:
        """Probabilities [m] and groups [m]."""
        if self.size == 1:
            return self.above(rng.random(prompts)), np.arange(prompts)
        groups = prompts // self.size
        group = np.repeat(np.arange(groups), self.size)
        base = self.between * rng.standard_normal(groups)[group]
        z = (base + self.within * rng.standard_normal(len(group))) / np.hypot(self.between, self.within)
        return self.above(stats.norm.sf(z)), group

    def mean(self) -> float:
        t = np.linspace(0.0, 40.0, 40_001)
        y = self.above(np.exp(-t)) * np.exp(-t)
        return float(((y[1:] + y[:-1]) / 2).sum() * (t[1] - t[0]))


def log_normal(mean: float, sd: float) -> Callable[[FloatArray], FloatArray]:
    return lambda u: np.minimum(np.exp(mean + sd * stats.norm.isf(u)), 1.0)


def with_mode(share: float, p: float) -> Callable[[FloatArray], FloatArray]:
    rest = log_normal(-12.0, 1.5)
    return lambda u: np.where(u < share, p, rest(np.clip((u - share) / (1 - share), 1e-300, 1.0)))


WORLDS = (
    World("straight tail", lambda u: probability((-np.log(u) - 13.5) / 5.0)),
    World("log-normal", log_normal(-12.0, 2.5)),
    World("logit-normal", lambda u: expit(-9 + 2.2 * stats.norm.isf(u))),
    World("Beta(0.25, 400)", lambda u: stats.beta.isf(u, 0.25, 400)),
    World("bounded at 1e-3", lambda u: 1e-3 * stats.beta.isf(u, 0.5, 3)),
    World("1 in 100 at 0.2", with_mode(0.01, 0.2)),
    World("1 in 1,000 at 0.2", with_mode(0.001, 0.2)),
    World("groups of three", log_normal(-12.0, 2.5), 3, 2.2, 1.2),
)


class Seen(NamedTuple):
    evidence: Evidence
    plain: Plain


def audit(p: FloatArray, group: np.ndarray, rng: np.random.Generator, noise: str) -> Seen:
    """What an audit sees of the probabilities ``p`` [m]."""
    m = len(p)
    error = rng.uniform(0.2, 1.0, m)
    if noise == "hits":
        hits = rng.poisson(1 / error**2)
        estimate, said = p * hits * error**2, 1 / np.sqrt(np.maximum(hits, 1))
    else:
        s = np.sqrt(np.log1p(error**2))
        estimate, said = p * np.exp(s * rng.standard_normal(m) - s * s / 2), error
    unknown = rng.random(m) < UNRELIABLE
    found = (rng.random(m) < -np.expm1(-p / UNSEEN)) & (estimate > 0) & ~unknown
    drawn = np.full(m, TARGET_DRAWS)
    plain = Plain(drawn, rng.binomial(TARGET_DRAWS, p), np.zeros(m, dtype=np.int64))
    low, high = plain_ends(plain, 0.05)
    quoted = np.where(found, np.minimum(estimate, 1.0), np.nan)
    return Seen(
        Evidence(quoted, np.where(found, said, np.nan), np.full(m, 30.0), low, high, group, unknown), plain
    )


def others(e: Evidence, n: FloatArray) -> dict[str, tuple[FloatArray, FloatArray]]:
    """Worst prompt and P(at least one) for ``n`` [R] fresh prompts by methods that take the estimates for the truth.
    Where there is no estimate, one in ten thousand of the resolution stands in: it is at the other end of the tail."""
    m = len(e.estimate)
    p = np.sort(np.where(e.resolved, e.estimate, 1e-4 * UNSEEN))[::-1]
    line = fit_line(psi_of(logit(np.minimum(p[:10], 1 - 1e-9))), np.arange(1, 11) / m)
    seen = np.log(np.where(e.resolved, e.estimate, UNSEEN))
    mean, sd = float(seen.mean()), float(seen.std())
    fitted = np.exp(np.minimum(mean + sd * stats.norm.isf((np.arange(20_000) + 0.5) / 20_000), 0.0)).mean()
    straight = probability(line.psi(1 / n)) if line is not None else np.full(len(n), np.nan)
    plain = -np.expm1(n * np.log1p(-min(float(p.mean()), 1 - 1e-12)))
    return {
        "line through the top ten": (straight, plain),
        "log-normal": (np.exp(np.minimum(mean + sd * stats.norm.isf(1 / n), 0.0)), -np.expm1(n * np.log1p(-fitted))),
        "empirical": (np.full(len(n), p[0]), plain),
    }  # fmt: skip


def noisy_draws(e: Evidence, weight: FloatArray, rng: np.random.Generator, draws: int) -> list[Draw]:
    """Draws of each prompt from its own estimate alone, on resampled base prompts: the noise counts twice."""
    centre, scale = centre_and_scale(e)
    drawn = []
    for _ in range(draws):
        counts = rng.multinomial(e.groups, np.full(e.groups, 1 / e.groups))
        theta = np.where(e.resolved, centre + scale * rng.standard_t(30, len(centre)), logit(1e-4 * UNSEEN))
        drawn.append(Draw(theta, weight * counts[e.group], None))
    return drawn


def worst_of(e: Evidence, drawn: list[Draw], n: FloatArray) -> FloatArray:
    """[R] the middle of the worst prompt, by the forecast's own lines."""
    tops = tops_of(e.groups)
    found = gather(e, drawn, tops, n)
    lines = [i for i, k in enumerate(tops) if k >= 10]
    return np.nanmedian(found.worst[:, lines].reshape(-1, len(n)), axis=0)


def replicate(world: World, noise: str, times: int, seed: int, draws: int = DRAWS) -> dict[str, Any]:
    """Figures of one world and noise, each a list over ``RATIOS`` or a number."""
    groups = PROMPTS // world.size
    n = RATIOS * groups
    worst, mu = world.above(1 / n), world.mean()
    any_ = -np.expm1(n * np.log1p(-mu))
    kept, reasons, rows, mix = [], {}, {}, []
    for t in range(times):
        rng = np.random.default_rng([seed, t])
        p, group = world.draw(rng, PROMPTS)
        e, plain = audit(p, group, rng, noise)
        drawer = Drawer(e)
        drawn = list(drawer.draws(rng, draws))
        found = extrapolate(e, drawer, drawn, n)
        kept.append(not found.refused)
        for reason in found.refused:
            reasons[_kind(reason)] = reasons.get(_kind(reason), 0) + 1
        methods = others(e, n)
        methods["not de-noised"] = (
            worst_of(e, noisy_draws(e, drawer.weight, rng, draws), n),
            np.full(len(n), np.nan),
        )
        methods["forecast"] = (found.worst[:, 1], found.any[:, 1])
        for name, (w, a) in methods.items():
            rows.setdefault(name, []).append([np.log(w / worst), a - any_])
        rows.setdefault("band", []).append(
            [_inside(found.worst, worst), _inside(found.any, any_), found.worst[:, 2] < worst, found.any[:, 2] < any_,
             found.worst[:, 2] / found.worst[:, 0]]
        )  # fmt: skip
        mix.append(_mix(p, e, plain, drawn))
    return {
        "world": world.name, "noise": noise, "times": times, "mu": mu, "worst": worst.tolist(), "any": any_.tolist(),
        "refused": 1 - float(np.mean(kept)), "reasons": reasons,
        "all": _summary(rows, np.ones(times, dtype=bool)), "kept": _summary(rows, np.array(kept)),
        "mix": np.mean(mix, axis=0).tolist(),
    }  # fmt: skip


def _mix(p: FloatArray, e: Evidence, plain: Plain, drawn: list[Draw]) -> list[float]:
    """Of the uniform mix: certified band holds, its upper end over the truth, model's band holds, its mean over the
    truth; at the N with a true chance of one half: error of the plug-in chance and of the model's mean chance."""
    weight = np.full(len(p), 1 / len(p))
    truth = float(p.mean())
    ends = plain_ends(plain, 1 - prompt_confidence(0.95, len(p)))
    certified = certified_band(weight, *ends, plain, 0.05)
    pbar = np.array([expit(theta).mean() for theta, _, _ in drawn])
    low, high = np.quantile(pbar, [0.025, 0.975])
    n = np.log(0.5) / np.log1p(-truth)
    plug = float(np.where(e.resolved, e.estimate, 0.0).mean())
    at = np.expm1(n * np.log1p(-np.array([plug])))[0]
    return [
        certified.low <= truth <= certified.high, certified.high / truth, low <= truth <= high, pbar.mean() / truth,
        -at - 0.5, float(-np.expm1(n * np.log1p(-pbar)).mean()) - 0.5,
    ]  # fmt: skip


def _inside(band: FloatArray, truth: FloatArray) -> np.ndarray:
    return (band[:, 0] <= truth) & (truth <= band[:, 2])


def _kind(reason: str) -> str:
    for word in ("gap", "bent", "depends", "nothing", "unreliable", "may be quoted", "base prompts"):
        if word in reason:
            return word
    return "other"


def _summary(rows: dict[str, list[Any]], chosen: np.ndarray) -> dict[str, Any]:
    told: dict[str, Any] = {}
    if not chosen.any():
        return told
    for name, values in rows.items():
        x = np.array(values, dtype=np.float64)[chosen]
        if name == "band":
            told["covers"], told["any_covers"] = x[:, 0].mean(0).tolist(), x[:, 1].mean(0).tolist()
            told["above_band"], told["any_above_band"] = x[:, 2].mean(0).tolist(), x[:, 3].mean(0).tolist()
            told["width"] = np.median(x[:, 4], axis=0).tolist()
        else:
            told[name] = {
                "error": np.abs(x[:, 0]).mean(0).tolist(),
                "bias": x[:, 0].mean(0).tolist(),
                "under": (x[:, 0] < 0).mean(0).tolist(),
                "any_error": np.abs(x[:, 1]).mean(0).tolist(),
            }
    return told


def tables(rows: list[dict[str, Any]]) -> str:
    def three(values: list[float], form: str = "{:.0%}") -> str:
        return " / ".join(form.format(v) for v in values)

    names = ("forecast", "not de-noised", "line through the top ten", "log-normal", "empirical")
    lines = ["| world | noise | refused | worst prompt in band | truth above it | band, upper / lower | "
             "P(any) in band | truth above it |",
             "|---|---|---:|---:|---:|---:|---:|---:|"]  # fmt: skip
    for r in rows:
        k = r["kept"]
        cells = ["-"] * 5 if not k else [three(k["covers"]), three(k["above_band"]), three(k["width"], "{:.0f}"),
                                         three(k["any_covers"]), three(k["any_above_band"])]  # fmt: skip
        lines.append(f"| {r['world']} | {r['noise']} | {r['refused']:.0%} | {' | '.join(cells)} |")
    lines += ["", f"| world | noise | {' | '.join(names)} |", "|---|---|" + "---:|" * len(names)]
    for r in rows:
        cells = [three(r["all"][name]["error"], "{:.2f}") for name in names]
        lines.append(f"| {r['world']} | {r['noise']} | {' | '.join(cells)} |")
    lines += ["", f"| world | noise | {' | '.join(names)} |", "|---|---|" + "---:|" * len(names)]
    for r in rows:
        cells = [three(r["all"][name]["under"]) for name in names]
        lines.append(f"| {r['world']} | {r['noise']} | {' | '.join(cells)} |")
    lines += ["", "| world | noise | certified covers | its upper end / truth | model covers | mean / truth | "
              "plug-in chance, error | model chance, error |", "|---|---|---:|---:|---:|---:|---:|---:|"]  # fmt: skip
    for r in rows:
        c, up, m, mean, plug, own = r["mix"]
        lines.append(
            f"| {r['world']} | {r['noise']} | {c:.0%} | {up:.3g} | {m:.0%} | {mean:.2f} | {plug:+.3f} | {own:+.3f} |"
        )
    lines += ["", "| world | noise | refused, of these by reason |", "|---|---|---|"]
    for r in rows:
        said = ", ".join(f"{k} {v / r['times']:.0%}" for k, v in sorted(r["reasons"].items())) or "-"
        lines.append(f"| {r['world']} | {r['noise']} | {said} |")
    return "\n".join(lines)


def main() -> None:
    options = designs.parser(
        __doc__,
        times=200,
        quick="12 audits of each world, half the draws, one kind of noise",
        what="audits of each world and noise",
    ).parse_args()
    times, noises, draws = (12, NOISES[:1], DRAWS // 2) if options.quick else (options.times, NOISES, DRAWS)
    made = (
        (f"{world.name}, {noise}", partial(replicate, world, noise, times, options.seed, draws))
        for world in WORLDS
        for noise in noises
    )
    print(tables(designs.run(options, made)))


if __name__ == "__main__":
    main()
