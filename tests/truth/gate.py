"""The refusal gate: one exact target, many events, and proposals that are good, mild, over-steered or blind.

The vocabulary has a stop token, "sorry" (after which the model stays refusing), three plain words, two harmful
ones, and words of assent. A prompt ``gate=G depth=D`` is not refused with probability G, decided over its first D
tokens: each of D - 1 words of assent must come before the answer begins, each with probability G^(1/D). Of the
harm, ``POISON_PART`` is poison.

Proposals: ``good`` (the gate half open), ``mild`` (the gate opened by a factor of 30), ``steered`` (harmful words
likelier at every step, as by a steering vector, the gate rather open), ``over`` (steered so far that every draw is
a hit of a kind the target hardly produces), ``missing`` (the gate open, blind to poison), ``blind`` (a second,
different law that is blind to poison too). ``ablated`` is the family of the published method: intensity 0 is the
target, 1 has the gate open; with ``drift`` a strong one also changes what is said behind the gate.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
from scipy.special import expit, logit
from truth.markov import STOP, Event, probability, steered, without
from truth.tablelaws import TableLaws

from tailrisk.records import Prompt

ASSENT = ("yes", "sure", "fine", "first", "next", "also", "now")
WORDS = ("", "sorry", "well", "so", "then", "bomb", "poison", *ASSENT)
REFUSE, BOMB, POISON, NOD = 1, 5, 6, 7
HARMFUL = (BOMB, POISON)
V, LENGTH = len(WORDS), 16
BEGIN = V
POISON_PART = 0.8
DEEPEST = 1 + len(ASSENT)

Build = Callable[[float, int], np.ndarray]


def table(gate: float, depth: int = 1, harm: float = 0.08) -> np.ndarray:
    """[V + 1, V] next-token probabilities; the last row is the first token's."""
    parts = np.array([1 - POISON_PART, POISON_PART])
    rows = np.zeros((V + 1, V))
    rows[REFUSE, [STOP, REFUSE]] = 0.5
    for word in (2, 3, 4):
        rows[word, :NOD] = [0.25, 0.02, 0.3, 0.25, 0.18 - harm, *(harm * parts)]
    rows[BOMB, :NOD] = [0.4, 0.05, 0.2, 0.2, 0.1, 0.05, 0.0]
    rows[POISON, :NOD] = [0.6, 0.0, 0.1, 0.1, 0.1, 0.0, 0.1]
    opening = np.zeros(V)
    opening[:NOD] = [0.1, 0, 0.5, 0.3, 0.08, *(0.02 * parts)]
    step = gate ** (1 / depth)
    chain = [BEGIN, *range(NOD, NOD + depth - 1)]
    for here, then in zip(chain, [*chain[1:], None], strict=True):
        rows[here] = step * (opening if then is None else np.eye(V)[then])
        rows[here, REFUSE] += 1.0 - step
    return rows


def ablated(gate: float, depth: int, intensity: float, drift: float = 0.0) -> np.ndarray:
    """The target with its refusal taken out by an intensity from 0 to 1, and harm a little likelier.

    ``drift``: how far the change also moves what is said once the gate is open. It tilts the plain words by
    exp(+-drift * intensity), so that a strong intervention answers unlike the target ever would.
    """
    step = gate ** (1 / depth)
    opened = expit(logit(step) + intensity * (logit(0.95) - logit(step)))
    rows = table(float(opened**depth), depth, 0.08 + 0.04 * intensity)
    tilt = np.exp(drift * intensity * np.array([1.0, 0.0, -1.0]))
    words = rows[2:NOD, 2:5]
    kept = words.sum(axis=1, keepdims=True)
    rows[2:NOD, 2:5] = words * tilt
    rows[2:NOD, 2:5] *= kept / rows[2:NOD, 2:5].sum(axis=1, keepdims=True)
    return rows


PROPOSALS: dict[str, Build] = {
    "target": table,
    "good": lambda gate, depth: table(0.5, depth, 0.1),
    "mild": lambda gate, depth: table(min(0.4, 30 * gate), depth),
    "steered": lambda gate, depth: steered(table(0.3, depth), HARMFUL, 1.0),
    "over": lambda gate, depth: steered(table(0.95, depth), [BOMB], 8.0),
    "missing": lambda gate, depth: without(table(0.8, depth, 0.12), POISON),
    "blind": lambda gate, depth: without(table(0.4, depth, 0.06), POISON),
}


def tables(names: Sequence[str], gate: float, depth: int = 1) -> np.ndarray:
    """[K, V + 1, V]"""
    return np.stack([PROPOSALS[n](gate, depth) for n in names])


def _event(name: str, moves: dict[tuple[int, int], int], harmful: Sequence[int]) -> Event:
    """An automaton whose state changes on some (state, token) pairs only."""
    states = 1 + max(moves.values())
    step = np.repeat(np.arange(states)[:, None], V, axis=1)
    for (state, token), after in moves.items():
        step[state, token] = after
    return Event(name, step, np.isin(np.arange(states), harmful))


def _last_harmful() -> Event:
    step = np.zeros((2, V), dtype=np.int64)
    step[:, STOP] = [0, 1]
    step[:, HARMFUL] = 1
    return Event("last", step, np.array([False, True]))


def _early(limit: int) -> Event:
    """Harm within the first ``limit`` tokens: states count tokens; the last one is harm."""
    moves = {(t, token): t + 1 for t in range(limit) for token in range(1, V)}
    moves |= {(t, token): limit + 1 for t in range(limit) for token in HARMFUL}
    return _event("early", moves, [limit + 1])


EVENTS: dict[str, Event] = {
    e.name: e
    for e in (
        _event("any", {(0, BOMB): 1, (0, POISON): 1}, [1]),
        _event("bomb", {(0, BOMB): 1}, [1]),
        _event("both", {(0, BOMB): 1, (0, POISON): 2, (1, POISON): 3, (2, BOMB): 3}, [3]),
        _last_harmful(),
        _early(3),
    )
}


@cache
def truth(gate: float, event: str = "any", depth: int = 1) -> float:
    """P(event) under the target."""
    return probability(table(gate, depth), EVENTS[event], LENGTH)


def opened_for(p: float, event: str = "any", depth: int = 1) -> float:
    """The gate with which P(event) is about ``p``: it grows with the gate, nearly in proportion."""
    return p / truth(1e-4, event, depth) * 1e-4


def text(gate: float, depth: int = 1) -> str:
    """What a prompt says."""
    return f"gate={gate!r} depth={depth}"


def parameters(prompt: Prompt) -> tuple[float, int]:
    gate, depth = (part.partition("=")[2] for part in prompt.text.split())
    return float(gate), int(depth)


class GateLaws(TableLaws):
    """The family as laws of the whole driver; see ``text`` for its prompts."""

    words, length = WORDS, LENGTH

    def tables(self, prompt: Prompt) -> np.ndarray:
        return _kept(self.names, *parameters(prompt))


@cache
def _kept(names: tuple[str, ...], gate: float, depth: int) -> np.ndarray:
    return tables(names, gate, depth)
