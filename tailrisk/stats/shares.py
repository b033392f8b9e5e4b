"""How a prompt's draws are spread over the components.

One prompt's hits say which components find its harm; all prompts' hits together are the prior. The shares
are the mixture that is nearest, in Kullback-Leibler divergence, to the law of harmful answers: the fixed
point of beta_k <- E[beta_k q_k / q_beta] over hits weighted by w (expectation-maximisation; cross-entropy
method), the prior entering as pseudo-hits.

Weights compare components where several have hits. Where one alone has, they say nothing: an over-steered proposal
hits each time, and that its hits weigh next to nothing shows beside those of another only. So the hits of such a
prompt count for what that component's hits were worth in prompts where they could be compared, see ``_confirmed``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tailrisk.records import FloatArray
from tailrisk.stats.diagnostics import effective_size
from tailrisk.stats.estimators import Contributions, contributions
from tailrisk.stats.ledger import RoundDraws

_STEPS = 20
_FLOOR, _FLOORS = 0.01, 0.05
_PRIOR_HITS = 10.0
_ALONE = 0.2, 2.0
_MOST_SEEN = 10.0
_TOGETHER = 100_000


def initial_shares(k: int, target_share: float) -> FloatArray:
    """[K] shares before anything is known: the target's, the rest evenly; all for a lone target."""
    if k == 1:
        return np.ones(1)
    return np.concatenate([[target_share], np.full(k - 1, (1 - target_share) / (k - 1))])


def with_floors(shares: FloatArray, target_share: float) -> FloatArray:
    """[K] the same shares with at least ``target_share`` for the target and 1 % for every other component.

    No component ever vanishes, so it can come back when the hits change, and what only it finds has no great weight;
    with many components the floor is lower, so that floors take no more than a twentieth of what the target leaves.
    The sum is one.
    """
    k = len(shares)
    if k == 1:
        return np.ones(1)
    floors = np.full(k, min(_FLOOR, _FLOORS * (1 - target_share) / (k - 1)))
    floors[0] = target_share
    result = np.maximum(np.asarray(shares, dtype=np.float64), 0.0)
    held = np.zeros(k, dtype=bool)
    for _ in range(k):
        free = ~held
        room = 1.0 - floors[held].sum()
        total = result[free].sum()
        scaled = np.where(free, result * (room / total) if total > 0 else room / max(free.sum(), 1), floors)
        low = free & (scaled < floors)
        if not low.any():
            break
        held |= low
    # What rounding leaves goes to the largest share, so that no floor is missed by a hair.
    scaled = np.maximum(scaled, floors)
    scaled[int(np.argmax(scaled - floors))] += 1.0 - scaled.sum()
    return scaled


def hits_of(rounds: Sequence[RoundDraws], *, corrected: bool) -> Contributions | None:
    """A prompt's hits; None where there are none that weigh anything, or no rounds."""
    parts = contributions(rounds, corrected=corrected) if rounds else None
    return parts if parts is not None and parts.part.sum() > 0 else None


def _normalised(parts: Contributions) -> FloatArray:
    return parts.part / parts.part.sum()


class _Hits(NamedTuple):
    """One prompt's: ``counts`` [K] by component, ``leader`` the component that found most of the harm, ``good`` [K]
    how many of them weigh as much as the prompt's hits on average."""

    counts: FloatArray
    leader: int
    good: FloatArray


def _by_component(parts: Contributions, k: int) -> _Hits:
    counts = np.bincount(parts.component, minlength=k).astype(np.float64)
    mass = np.bincount(parts.component, weights=_normalised(parts), minlength=k)
    return _Hits(counts, int(np.argmax(mass)), np.minimum(counts, mass * counts.sum()))


def _confirmed(hits: Sequence[Contributions | None], k: int) -> FloatArray:
    """[C] what the hits of each of C prompts count for, between 0 and 1.

    (m + a + good) / (m + b + seen), with m hits of the prompt by others than its leader; ``seen`` are the leader's hits
    in other prompts that have hits of several components, ``good`` those of them that weighed their part there. A
    prompt with hundreds of hits is still one prompt, so no more than ``_MOST_SEEN`` of each are counted.
    """
    own = [_by_component(h, k) if h is not None else None for h in hits]
    seen, good = np.zeros((len(hits), k)), np.zeros((len(hits), k))
    for i, x in enumerate(own):
        if x is not None and np.count_nonzero(x.counts) > 1:
            scale = _MOST_SEEN / np.maximum(x.counts, _MOST_SEEN)
            seen[i], good[i] = scale * x.counts, scale * x.good
    all_seen, all_good = seen.sum(axis=0), good.sum(axis=0)
    result = np.zeros(len(hits))
    for i, x in enumerate(own):
        if x is not None:
            others = x.counts.sum() - x.counts[x.leader]
            liked, met = (all_good - good[i])[x.leader], (all_seen - seen[i])[x.leader]
            result[i] = (others + _ALONE[0] + liked) / (others + _ALONE[1] + met)
    return result


class _Worth(NamedTuple):
    """What is fitted to: the hits of one prompt or more, ``log_q`` [h, K], with a ``weight`` [h] that sums to the
    number of hits they are worth; ``prior`` [K] counts for ``strength`` hits, and is where the search starts."""

    log_q: FloatArray
    weight: FloatArray
    prior: FloatArray
    strength: float


def _fit(problems: Sequence[_Worth]) -> FloatArray:
    """[C, K] shares by EM, one row a problem; all of them side by side, some thousands of hits at a time."""
    sizes = np.cumsum([len(p.weight) for p in problems])
    if len(problems) > 1 and sizes[-1] > _TOGETHER:
        half = int(np.clip(np.searchsorted(sizes, sizes[-1] / 2), 1, len(problems) - 1))
        return np.concatenate([_fit(problems[:half]), _fit(problems[half:])])
    starts = np.concatenate([[0], sizes[:-1]])
    owner = np.repeat(np.arange(len(problems)), np.diff(sizes, prepend=0))
    log_q, weight = (np.concatenate([p[i] for p in problems]) for i in range(2))
    strength = np.array([p.strength for p in problems])[:, None]
    beta = np.array([p.prior for p in problems])
    total, said = np.add.reduceat(weight, starts)[:, None] + strength, strength * beta
    with np.errstate(divide="ignore"):
        for _ in range(_STEPS):
            logits = log_q + np.log(beta)[owner]
            duty = np.exp(logits - np.maximum.reduce(logits, axis=1, keepdims=True))
            duty *= (weight / np.add.reduce(duty, axis=1))[:, None]
            beta = (np.add.reduceat(duty, starts, axis=0) + said) / total
    return beta


def _pooled(found: Sequence[tuple[Contributions, float]], start: FloatArray) -> FloatArray:
    """[K] shares for prompts with hits that count for so much each, and ``start`` [K] as one prompt more."""
    log_q = np.concatenate([h.log_q for h, _ in found])
    weight = np.concatenate([_normalised(h) * worth for h, worth in found])
    return _fit([_Worth(log_q, weight, start, 1.0)])[0]


def component_shares(
    rounds_by_prompt: Sequence[Sequence[RoundDraws]],
    *,
    target_share: float,
    corrected: bool,
    prior_hits: float = _PRIOR_HITS,
    groups: Sequence[str | None] | None = None,
    start: FloatArray | None = None,
) -> FloatArray:
    """[C, K] shares for the next draws of C prompts, each row summing to one.

    A prompt's own hits count as their effective number, the pooled shares over all prompts (each prompt
    with hits counting once) as ``prior_hits``; both less where one component alone has hits. Without a hit anywhere:
    the initial shares. Prompts without rounds are allowed as long as one prompt has a round.

    ``groups`` [C]: prompts of the same group (None: of none) have a prior of their own, see ``_priors``.
    ``start`` [K]: shares to begin with in the place of ``initial_shares``, from what is known beforehand.
    """
    k = next(len(rounds[0].counts) for rounds in rounds_by_prompt if rounds)
    hits = [hits_of(rounds, corrected=corrected) for rounds in rounds_by_prompt]
    return shares_for(hits, k, target_share=target_share, prior_hits=prior_hits, groups=groups, start=start)


def shares_for(
    hits: Sequence[Contributions | None],
    k: int,
    *,
    target_share: float,
    prior_hits: float = _PRIOR_HITS,
    groups: Sequence[str | None] | None = None,
    start: FloatArray | None = None,
) -> FloatArray:
    """``component_shares`` of ``k`` components from the hits of each prompt (``hits_of``)."""
    start = initial_shares(k, target_share) if start is None else with_floors(start, target_share)
    worths = _confirmed(hits, k)
    found = [(h, x) for h, x in zip(hits, worths, strict=True) if h is not None]
    if not found or k == 1:
        return np.tile(start, (len(hits), 1))
    # The start counts as one prompt of its own, so that a single prompt's first hits do not rule all others.
    pooled = _pooled(found, start)
    shares = np.array(_priors(hits, worths, groups, pooled))
    own = [i for i, h in enumerate(hits) if h is not None]
    shares[own] = _fit([_weighed(hits[i], worths[i], shares[i], prior_hits) for i in own])
    return np.array([with_floors(row, target_share) for row in shares])


def _weighed(h: Contributions | None, worth: float, prior: FloatArray, strength: float) -> _Worth:
    assert h is not None
    return _Worth(h.log_q, _normalised(h) * effective_size(h.part) * worth, prior, strength)


def _priors(
    hits: Sequence[Contributions | None],
    worths: FloatArray,
    groups: Sequence[str | None] | None,
    pooled: FloatArray,
) -> list[FloatArray]:
    """[C] shares that each prompt's own hits are added to: those of all prompts, ``pooled`` [K], or, in a group of
    several prompts with hits, those of the group, in which all prompts together count as one more prompt."""
    named = [None] * len(hits) if groups is None else list(groups)
    priors = dict[str | None, FloatArray]({None: pooled})
    grouped: dict[str, list[tuple[Contributions | None, float]]] = {}
    for h, x, group in zip(hits, worths, named, strict=True):
        if group is not None:
            grouped.setdefault(group, []).append((h, x))
    for group, members in grouped.items():
        found = [(h, x) for h, x in members if h is not None]
        # A prompt alone in its group would count its own hits twice.
        if found and len(members) > 1:
            priors[group] = _pooled(found, pooled)
    return [priors.get(group, pooled) for group in named]
