"""Openings to avoid, against sums over all texts of a small Markov law."""

from collections.abc import Callable, Sequence
from itertools import product

import numpy as np
import pytest
from scipy.special import log_softmax

from tailrisk.models.avoid import Text, measure, prefix_free

V, LENGTH = 4, 4


def next_token(text: Text) -> np.ndarray:
    return log_softmax(np.random.default_rng([*text, 7]).normal(size=V) * 2)


def log_p(text: Text) -> float:
    return float(sum(next_token(text[:i])[x] for i, x in enumerate(text)))


def each(one: Callable[[Text], np.ndarray]) -> Callable[[Sequence[Text]], list[np.ndarray]]:
    return lambda texts: [one(text) for text in texts]


def test_prefix_free_keeps_the_shortest() -> None:
    assert prefix_free([(1, 2), (1,), (3, 0), (3, 0), (3, 0, 1), (2, 2)]) == ((1,), (2, 2), (3, 0))


@pytest.mark.parametrize(
    "openings", [((0,),), ((0, 1), (2,)), ((0, 1, 2), (0, 1, 3), (0, 2), (3, 3, 3)), ((0, 0, 0, 0),)]
)
def test_room_and_the_chain_of_tilted_tokens_against_enumeration(openings: tuple[Text, ...]) -> None:
    room = measure(openings, each(next_token))
    inside = [y for y in product(range(V), repeat=LENGTH) if not any(y[: len(o)] == o for o in openings)]
    assert np.isclose(room.log_room, np.log(sum(np.exp(log_p(y)) for y in inside)), atol=1e-12)
    for y in inside:
        chain = 0.0
        for i, x in enumerate(y):
            row = next_token(y[:i]).copy()
            for token, factor in room.factors.get(y[:i], {}).items():
                row[token] += factor
            chain += row[x] - np.logaddexp.reduce(row)
        assert np.isclose(chain, log_p(y) - room.log_room, atol=1e-10)


def test_a_small_room_is_not_lost_to_rounding() -> None:
    def almost_sure(text: Text) -> np.ndarray:
        return np.array([np.log1p(-1e-12), np.log(1e-12)]) if len(text) < 2 else np.log([0.5, 0.5])

    assert np.isclose(measure(((0, 0),), each(almost_sure)).log_room, np.log(2e-12), atol=1e-9)


def test_no_room_at_all() -> None:
    assert measure(((0,), (1,), (2,), (3,)), each(next_token)).log_room == -np.inf
