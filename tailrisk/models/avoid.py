"""The target given that its answer begins with none of certain openings.

For a prefix-free set S of openings, q(y) = p(y) 1[y begins with none of S] / p(none of S). Drawing from it one
token at a time needs, for every beginning u of an opening, the probability room(u) of ending up with none of
them from there: room(u) = sum of p(x | u) over tokens x that lead no opening on, plus p(c | u) room(uc) over
those that do, and 0 at an opening itself. Then q(x | u) is proportional to p(x | u) room(ux).

The sums run over the tokens that are left, never as one minus what is avoided: what is left may be 1e-4.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from tailrisk.records import FloatArray

Text = tuple[int, ...]


class Room(NamedTuple):
    """``log_room``: log p(none of the openings). ``factors``: for every beginning of an opening the tokens
    that lead on, with log room of where they lead (``-inf``: to an opening)."""

    log_room: float
    factors: Mapping[Text, Mapping[int, float]]


def prefix_free(openings: Iterable[Text]) -> tuple[Text, ...]:
    """The openings without those that begin with another one."""
    kept: list[Text] = []
    for opening in sorted(set(openings)):
        if not any(opening[: len(k)] == k for k in kept):
            kept.append(opening)
    return tuple(kept)


def measure(
    openings: tuple[Text, ...], next_tokens: Callable[[Sequence[Text]], Sequence[FloatArray]]
) -> Room:
    """Room for a prefix-free set; ``next_tokens(texts)`` are the [V] log-probabilities after each text."""
    beginnings = sorted({o[:i] for o in openings for i in range(len(o))}, key=len, reverse=True)
    log_room: dict[Text, float] = dict.fromkeys(openings, -math.inf)
    factors: dict[Text, dict[int, float]] = {}
    for u, law in zip(beginnings, next_tokens(beginnings), strict=True):
        leads = {o[len(u)]: log_room[o[: len(u) + 1]] for o in openings if o[: len(u)] == u}
        row = law.copy()
        for token, room in leads.items():
            row[token] += room
        log_room[u] = min(float(np.logaddexp.reduce(row)), 0.0)
        factors[u] = leads
    return Room(log_room[()], factors)
