"""What a LoRA is fitted to: harmful draws with weights that are fixed before the fit, and prompts kept aside."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from tailrisk.errors import InputError
from tailrisk.records import FloatArray, IntArray, Prompt, PromptHits
from tailrisk.seeds import derive_seed
from tailrisk.stats.tempering import hit_divergence, tempered

Ids = tuple[int, ...]


class Beginning(NamedTuple):
    """What the base law makes its answers begin with: ``opening``, and none of ``avoided``."""

    opening: Ids = ()
    avoided: tuple[Ids, ...] = ()

    def allows(self, answer: Ids) -> bool:
        size = len(self.opening)
        own = answer[:size] == self.opening and len(answer) > size
        return own and not any(answer[: len(o)] == o for o in self.avoided)


class Example(NamedTuple):
    """A harmful answer, its stop token included, behind what the base law reads before it; an opening that it forces
    is read, too."""

    prompt: Ids
    response: Ids


class HeldOut(NamedTuple):
    """Hits of prompts that the fit does not see. ``owner`` [h] is the number of a hit's prompt, ``log_parts`` [h] its
    part of that prompt's estimate, ``log_p`` [h] its log-probability under the target; ``log_estimate`` [prompts]."""

    examples: tuple[Example, ...]
    owner: IntArray
    log_parts: FloatArray
    log_p: FloatArray
    log_estimate: FloatArray

    def divergences(self, log_q: FloatArray) -> FloatArray:
        """[prompts] KL(q*||q) in nats, from the hits' log-probabilities under q [h]."""
        ratio = self.log_p - log_q
        return np.array(
            [
                hit_divergence(self.log_parts[self.owner == c], ratio[self.owner == c], float(log_estimate))
                for c, log_estimate in enumerate(self.log_estimate)
            ]
        )


class FitData(NamedTuple):
    """``weights`` [n] of the examples sum to one; ``gamma`` and ``ess`` tell how they were tempered; ``prompts`` the
    number that the examples belong to. ``digest`` hashes all of it.

    ``avoided``: openings that the base law shuts out, which no example has; ``outside``: the mean over prompts of the
    part of their estimates that this base cannot draw, with whatever adapter."""

    examples: tuple[Example, ...]
    weights: FloatArray
    gamma: float
    ess: float
    prompts: int
    held_out: HeldOut
    digest: str
    avoided: tuple[Ids, ...] = ()
    outside: float = 0.0


def split_prompts(prompts: Sequence[Prompt], share: float, seed: int) -> frozenset[str]:
    """Ids of the prompts to keep aside, by lot: whole groups, about ``share`` of the prompts, at least one.

    Errors: InputError where nothing would be left to fit to.
    """
    units: dict[str, list[str]] = {}
    for prompt in prompts:
        units.setdefault(f"group {prompt.group}" if prompt.group else f"prompt {prompt.id}", []).append(
            prompt.id
        )
    order = np.random.default_rng(derive_seed(seed, "held out")).permutation(len(units))
    names = list(units)
    aside: list[str] = []
    for place in order[:-1]:
        if aside and len(aside) + len(units[names[place]]) > share * len(prompts):
            break
        aside += units[names[place]]
    if not aside:
        raise InputError(
            f"{len(prompts)} prompts in {len(units)} groups: none can be kept aside to see whether a fit helps "
            "prompts that it was not made from; give prompts of two groups at least"
        )
    return frozenset(aside)


def fit_data(
    hits: Mapping[str, PromptHits],
    aside: frozenset[str],
    read: Callable[[Prompt], Ids],
    ess: float,
    beginning: Beginning = Beginning(),  # noqa: B008 (an immutable tuple)
) -> FitData:
    """Examples from the hits of all prompts that have any. ``read``: what the base law reads before it answers.
    Hits that do not begin as the base law makes all answers begin are left out.

    Errors: InputError where the prompts to fit to, or those kept aside, have no hits.
    """
    whole, hits = hits, {i: _within(h, beginning) for i, h in hits.items()}

    def examples_of(h: PromptHits) -> list[Example]:
        ids, size = (*read(h.prompt), *beginning.opening), len(beginning.opening)
        return [Example(ids, tuple(map(int, tokens[size:]))) for tokens in h.tokens]

    fitted = [h for i, h in hits.items() if i not in aside and len(h.tokens)]
    held = [h for i, h in hits.items() if i in aside and len(h.tokens)]
    if not fitted or not held:
        which = "kept aside" if fitted else "to fit to"
        raise InputError(
            f"none of the prompts {which} has a harmful answer so far; give more training.draws, other prompts, or a "
            "proposal that finds harm"
        )
    weights = tempered([h.log_parts for h in fitted], ess)
    aside_data = HeldOut(
        examples=tuple(e for h in held for e in examples_of(h)),
        owner=np.repeat(np.arange(len(held)), [len(h.tokens) for h in held]),
        log_parts=np.concatenate([h.log_parts for h in held]),
        log_p=np.concatenate([h.log_p for h in held]),
        log_estimate=np.array([h.log_estimate for h in held]),
    )
    examples = tuple(e for h in fitted for e in examples_of(h))
    flat = np.concatenate(weights.weights) / len(fitted)
    return FitData(
        examples=examples,
        weights=flat,
        gamma=weights.gamma,
        ess=weights.ess,
        prompts=len(fitted),
        held_out=aside_data,
        digest=_digest(examples, flat, aside_data),
        avoided=beginning.avoided,
        outside=float(np.mean([1.0 - _mass(hits[i]) / _mass(h) for i, h in whole.items()])),
    )


def _within(hits: PromptHits, beginning: Beginning) -> PromptHits:
    kept = [i for i, tokens in enumerate(hits.tokens) if beginning.allows(tuple(tokens.tolist()))]
    return hits._replace(
        tokens=[hits.tokens[i] for i in kept], log_parts=hits.log_parts[kept], log_p=hits.log_p[kept]
    )


def _mass(hits: PromptHits) -> float:
    return float(np.exp(hits.log_parts).sum())


def _digest(examples: Sequence[Example], weights: FloatArray, held: HeldOut) -> str:
    digest = hashlib.sha256()
    for group in (examples, held.examples):
        for example in group:
            digest.update(repr(example).encode())
        digest.update(b"/")
    for values in (weights, held.log_parts, held.log_p, held.log_estimate):
        digest.update(np.asarray(values, dtype="<f8").tobytes())
    return digest.hexdigest()
