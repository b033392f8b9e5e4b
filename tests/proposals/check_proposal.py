"""What every proposal kind must satisfy; a new kind is one more entry in ``test_proposal_kinds.CASES``."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from tailrisk.models.laws import LawSet
from tailrisk.records import Prompt


def responses(vocab: int, length: int, stops: tuple[int, ...]) -> Iterator[NDArray[np.int32]]:
    """Every response: all texts that end with their first stop token or at ``length``."""
    going = [t for t in range(vocab) if t not in stops]
    for size in range(length):
        for body in itertools.product(going, repeat=size):
            last = range(vocab) if size == length - 1 else stops
            for token in last:
                yield np.array((*body, token), dtype=np.int32)


def check_proposal(laws: LawSet, component: int, prompt: Prompt, *, slack: float, n: int = 300) -> None:
    """Runs all checks on one law of ``laws``; ``slack`` in nats a response."""
    before = _snapshot(laws)
    drawn = laws.sample(prompt, component, n, seed=5)
    scored = laws.log_prob(prompt, drawn.tokens)
    assert scored.shape == (n, len(laws.names)) and scored.dtype == np.float64
    assert not np.isnan(scored).any() and not np.isposinf(scored).any()
    assert np.isfinite(scored[:, 0]).all(), "what a proposal says the target can say, without truncation"
    assert np.abs(scored[:, component] - drawn.log_q).max() < slack
    _check_form(laws, drawn.tokens, drawn.finished)
    again = laws.sample(prompt, component, n, seed=5)
    assert all(np.array_equal(a, b) for a, b in zip(drawn.tokens, again.tokens, strict=True))
    assert np.array_equal(drawn.log_q, again.log_q)
    _check_enumeration(laws, component, prompt, drawn.tokens)
    for (name, old), (_, new) in zip(before, _snapshot(laws), strict=True):
        assert torch.equal(old, new), f"{name} was changed"


def _check_form(laws: LawSet, tokens: list[NDArray[np.int32]], finished: NDArray[np.bool_]) -> None:
    for y, done in zip(tokens, finished, strict=True):
        assert not np.isin(y[:-1], laws.limits.stop_ids).any()
        assert bool(np.isin(y[-1], laws.limits.stop_ids)) == done
        assert done or len(y) == laws.limits.max_new_tokens


def _check_enumeration(laws: LawSet, component: int, prompt: Prompt, drawn: list[NDArray[np.int32]]) -> None:
    """Densities sum to one, and the draws follow them (Pearson's statistic over responses not too rare)."""
    everything = list(responses(8, laws.limits.max_new_tokens, laws.limits.stop_ids))
    q = np.exp(laws.log_prob(prompt, everything)[:, component])
    assert abs(q.sum() - 1.0) < 1e-6
    counts = {y.tobytes(): 0 for y in everything}
    for y in drawn:
        counts[y.tobytes()] += 1
    seen = np.array(list(counts.values()))
    assert (q[seen > 0] > 0).all()
    expected = len(drawn) * q
    common = expected > 5
    cells = np.append(seen[common], seen[~common].sum())
    means = np.append(expected[common], max(expected[~common].sum(), 1e-9))
    keep = means > 1e-6
    statistic = float(((cells - means)[keep] ** 2 / means[keep]).sum())
    degrees = int(keep.sum()) - 1
    assert statistic < degrees + 5 * np.sqrt(2 * max(degrees, 1)) + 5


def _snapshot(laws: LawSet) -> list[tuple[str, torch.Tensor]]:
    models = {id(law.view.model): law.view.model for law in laws.laws}
    return [(name, p.clone()) for model in models.values() for name, p in model.named_parameters()]
