"""Which of the candidate directions is taken, and why: the published rule, from scores alone.

A direction passes if taking it out leaves harmless answers nearly as they were (mean KL divergence of the first
token's law below a limit), if adding it makes the model refuse harmless prompts (mean refusal score above a
limit, 0), and if it was read in the first 80 % of the model's depth. Of those that pass, the one whose removal
leaves the lowest refusal score on harmful prompts is taken (Arditi et al. 2024, arXiv 2406.11717, appendix C).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from tailrisk.errors import ConfigError, ModelError

DEEPEST = 0.8


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """``layer``: the block whose output it was read at; ``position``: the prompt's token (-1 is the last) and its
    ``token``'s text; ``length`` of the raw difference of means.

    ``bypass``: mean refusal score on harmful prompts without it; ``induce``: on harmless prompts with it added at
    its layer; ``kl``: mean KL divergence on harmless prompts without it, in nats.
    """

    layer: int
    position: int
    token: str
    length: float
    bypass: float
    induce: float
    kl: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """``max_kl`` in nats (None: no limit), ``min_induce`` as a refusal score (None: no limit), ``layers``: the
    first so many may be chosen from. Errors: ConfigError for a ``max_kl`` that nothing can be below."""

    layers: int
    max_kl: float | None = 0.1
    min_induce: float | None = 0.0

    def __post_init__(self) -> None:
        if self.max_kl is not None and not self.max_kl > 0.0:
            raise ConfigError(
                f"--max-kl {self.max_kl:g}: a divergence below it does not exist; give a number above 0"
            )

    def cuts(self, found: Candidate) -> tuple[str, ...]:
        """Names of the limits that a candidate fails: ``depth``, ``finite``, ``kl``, ``induce``."""
        numbers = (found.bypass, found.induce, found.kl)
        if not all(map(math.isfinite, numbers)):
            return ("finite",)
        failed = (
            ("depth", found.layer >= self.layers),
            ("kl", self.max_kl is not None and not found.kl < self.max_kl),
            ("induce", self.min_induce is not None and not found.induce > self.min_induce),
        )
        return tuple(name for name, fails in failed if fails)


def deepest(blocks: int) -> int:
    """How many blocks, from the first, may have their output read: those whose output enters a block in the
    first 80 %; always one at least."""
    return max(1, math.ceil(DEEPEST * blocks) - 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """``asked`` are the limits that were wanted, ``used`` those that were needed; ``passing`` candidates met the
    latter. ``relaxed``: what was given up, in words and in order."""

    candidate: Candidate
    asked: Limits
    used: Limits
    passing: int
    relaxed: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def cut_counts(candidates: Sequence[Candidate], limits: Limits) -> dict[str, int]:
    """How many candidates each limit cuts; one may be cut by several."""
    counts: dict[str, int] = {"depth": 0, "finite": 0, "kl": 0, "induce": 0}
    for candidate in candidates:
        for name in limits.cuts(candidate):
            counts[name] += 1
    return counts


def choose(candidates: Sequence[Candidate], limits: Limits, *, relax: bool = False) -> Choice:
    """The passing candidate with the lowest bypass score (the earlier layer and the later position among equals).

    ``relax``: where none passes, the limit on the KL is doubled until one does; if none does at any KL, the
    induced refusal is no longer asked for and the KL's limit starts anew. The depth is never given up.

    Errors: ModelError where none passes, with what each limit cut and how near the best ones came.
    """
    chosen = _best(candidates, limits)
    if chosen is not None:
        return _choice(chosen, candidates, limits, limits, ())
    if relax:
        for used, words in _relaxations(candidates, limits):
            if (chosen := _best(candidates, used)) is not None:
                return _choice(chosen, candidates, limits, used, words)
    raise ModelError(_none_passes(candidates, limits, relax))


def why(choice: Choice, candidates: int, target: float) -> str:
    """One sentence: what was chosen, by what, among how many. ``target``: its own refusal score."""
    found, used = choice.candidate, choice.used
    conditions = [] if used.max_kl is None else [f"KL < {used.max_kl:g}"]
    conditions += [] if used.min_induce is None else ["induced refusal"]
    among = f"{choice.passing} of {candidates} candidates" + (
        f" with {' and '.join(conditions)}" if conditions else ""
    )
    given_up = f"; relaxed: {', '.join(choice.relaxed)}" if choice.relaxed else ""
    return (
        f"chosen: layer {found.layer}, position {found.position} ({found.token!r}): lowest refusal score "
        f"{found.bypass:.2f} (target {target:.2f}) among {among}{given_up}"
    )


def _best(candidates: Sequence[Candidate], limits: Limits) -> Candidate | None:
    passing = [c for c in candidates if not limits.cuts(c)]
    return min(passing, key=lambda c: (c.bypass, c.layer, -c.position), default=None)


def _choice(
    chosen: Candidate, candidates: Sequence[Candidate], asked: Limits, used: Limits, words: tuple[str, ...]
) -> Choice:
    passing = sum(not used.cuts(c) for c in candidates)
    return Choice(candidate=chosen, asked=asked, used=used, passing=passing, relaxed=words)


def _relaxations(candidates: Sequence[Candidate], limits: Limits) -> list[tuple[Limits, tuple[str, ...]]]:
    """Limits to try in turn, weaker and weaker, each with what it gives up."""
    highest = max((c.kl for c in candidates if math.isfinite(c.kl)), default=0.0)
    tried: list[tuple[Limits, tuple[str, ...]]] = []
    for induce, words in ((limits.min_induce, ()), (None, ("induced refusal",))):
        start = replace(limits, min_induce=induce)
        if words:
            tried.append((start, words))
        limit = limits.max_kl
        while limit is not None and limit <= highest:
            limit *= 2
            tried.append((replace(start, max_kl=limit), (*words, f"KL {limits.max_kl:g} to {limit:g}")))
    return tried


def _none_passes(candidates: Sequence[Candidate], limits: Limits, relax: bool) -> str:
    if not candidates:
        return (
            "no candidate direction: the two sets have the same mean activations at every layer and position"
        )
    counts = cut_counts(candidates, limits)
    within = [c for c in candidates if "depth" not in limits.cuts(c) and "finite" not in limits.cuts(c)]
    parts = [f"of {len(candidates)} candidates"]
    if counts["finite"]:
        parts.append(f"{counts['finite']} have scores that are not finite")
    if counts["depth"]:
        parts.append(f"{counts['depth']} lie in the last blocks, from {limits.layers} on")
    if limits.max_kl is not None and within:
        best = min(c.kl for c in within)
        parts.append(f"{counts['kl']} fail KL < {limits.max_kl:g} (smallest KL {best:.3g})")
    if limits.min_induce is not None and within:
        best = max(c.induce for c in within)
        parts.append(
            f"{counts['induce']} do not induce refusal (highest score {best:.3g}, above {limits.min_induce:g} asked)"
        )
    remedy = "give other or more prompts, or other --layers"
    if not relax:
        remedy = f"--relax weakens the limits in a stated order, --max-kl sets that on the KL; or {remedy}"
    return f"no direction passes: {', '.join(parts)}. {remedy[0].upper()}{remedy[1:]}"
