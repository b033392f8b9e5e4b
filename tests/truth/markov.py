"""Exact Markov language models: sampling, log-probabilities, and probabilities of events by recursion.

A model is a table [V + 1, V]: row a holds the probabilities of the next token after token a, the last row those
of the first token. Token 0 is the stop token; a response ends with it or at the length limit. An event is a
finite automaton over tokens, so its probability is a sum over (last token, automaton state), exact to rounding
whatever the length and however rare it is; nothing of the code under test takes part.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

STOP = 0
FEW = 500
"""Rows up to which all tokens are compared at once; beyond, walking up to the drawn one is faster."""


@dataclass(frozen=True)
class Event:
    """An automaton: ``step`` [S, V] gives the state after a token (the stop token leaves it), ``harmful`` [S] the
    states in which a finished response is harmful. State 0 is the start."""

    name: str
    step: np.ndarray
    harmful: np.ndarray

    def of(self, tokens: np.ndarray) -> np.ndarray:
        """[n] bool for responses [n, T] padded with the stop token."""
        state, alive = np.zeros(len(tokens), dtype=np.int64), np.arange(len(tokens))
        for column in tokens.T:
            drawn = column[alive]
            state[alive] = self.step[state[alive], drawn]
            alive = alive[drawn != STOP]
        return self.harmful[state]


def probability(table: np.ndarray, event: Event, length: int) -> float:
    """P(event) for responses of at most ``length`` tokens."""
    size, states = table.shape[1], len(event.step)
    alive = np.zeros((size + 1, states))
    alive[size, 0] = 1.0
    total = 0.0
    for _ in range(length):
        flow = table.T @ alive
        after = np.zeros((size + 1, states))
        for token in range(size):
            np.add.at(after[token], event.step[:, token], flow[token])
        total += after[STOP] @ event.harmful
        after[STOP] = 0.0
        alive = after
    return float(total + alive.sum(axis=0) @ event.harmful)


def draw(table: np.ndarray, n: int, length: int, rng: np.random.Generator) -> np.ndarray:
    """[n, length] int64 tokens of n responses, padded with the stop token. ``table`` [V + 1, V], or one for each
    step [length, V + 1, V]."""
    size = table.shape[-1]
    cdf = np.cumsum(table, axis=-1)
    cdf[cdf > 1 - 1e-12] = np.inf  # rounding of a row's sum must not give an impossible token
    uniform = rng.random((n, length))
    tokens = np.zeros((n, length), dtype=np.int64)
    alive, last = np.arange(n), np.full(n, size)
    for t in range(length):
        here, point = cdf if cdf.ndim == 2 else cdf[t], uniform[alive, t]
        if len(alive) < FEW:
            drawn = (here[last] <= point[:, None]).sum(axis=1)
        else:
            flat, row, drawn = here.ravel(), last * size, np.zeros(len(alive), dtype=np.int64)
            while (beyond := flat[row + drawn] <= point).any():
                drawn += beyond
        tokens[alive, t] = drawn
        going = drawn != STOP
        alive, last = alive[going], drawn[going]
        if not len(alive):
            break
    return tokens


def mixed(table: np.ndarray, target: np.ndarray, mix: float, switch: int, length: int) -> np.ndarray:
    """[length, V + 1, V]: mix * table + (1 - mix) * target for the first ``switch`` tokens, then the target."""
    early = np.arange(length)[:, None, None] < switch
    return np.where(early, mix * table + (1 - mix) * target, target)


def lengths(tokens: np.ndarray) -> np.ndarray:
    """[n] tokens of each padded response, the stop token included."""
    stopped = tokens == STOP
    return np.where(stopped.any(axis=1), stopped.argmax(axis=1) + 1, tokens.shape[1])


def token_log_probs(tables: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """[K, n, T] log-probabilities of each token under tables [K, V + 1, V], or [K, T, V + 1, V] with one for each
    step; 0 behind the stop token."""
    with np.errstate(divide="ignore"):
        log_p = np.log(tables)
    before = np.concatenate([np.full((len(tokens), 1), tables.shape[-1]), tokens[:, :-1]], axis=1)
    inside = np.arange(tokens.shape[1]) < lengths(tokens)[:, None]
    steps = () if tables.ndim == 3 else (np.arange(tokens.shape[1]),)
    return np.where(inside, log_p[(slice(None), *steps, before, tokens)], 0.0)


def log_prob(tables: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """[n, K] log-probabilities of whole responses, -inf where impossible; as ``token_log_probs``, without the work
    behind the stop token, where most of the places are."""
    with np.errstate(divide="ignore"):
        log_p = np.log(tables)
    total = np.zeros((len(tables), len(tokens)))
    alive, last = np.arange(len(tokens)), np.full(len(tokens), tables.shape[-1])
    for t, column in enumerate(tokens.T):
        drawn = column[alive]
        total[:, alive] += (log_p if tables.ndim == 3 else log_p[:, t])[:, last, drawn]
        going = drawn != STOP
        alive, last = alive[going], drawn[going]
        if not len(alive):
            break
    return total.T


def steered(table: np.ndarray, tokens: Sequence[int], strength: float) -> np.ndarray:
    """The table with ``strength`` added to the logits of some tokens at every step, as steering vectors do."""
    logits = np.zeros(table.shape[1])
    logits[list(tokens)] = strength
    return _normalised(table * np.exp(logits))


def without(table: np.ndarray, token: int) -> np.ndarray:
    """The table with a token that never comes, the others keeping their proportions."""
    result = table.copy()
    result[:, token] = 0.0
    return _normalised(result)


def _normalised(table: np.ndarray) -> np.ndarray:
    """Rows that sum to one; nothing follows the stop token, so its row stays empty."""
    total = table.sum(axis=1, keepdims=True)
    return np.divide(table, total, out=np.zeros_like(table), where=total > 0)


def all_responses(size: int, length: int) -> np.ndarray:
    """[S, length] every response, padded with the stop token."""

    def grow(head: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        if len(head) == length:
            yield head
            return
        yield (*head, *[STOP] * (length - len(head)))
        for token in range(1, size):
            yield from grow((*head, token))

    return np.array(list(grow(())))
