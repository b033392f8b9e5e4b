"""What a step is made of: drawn by weight, summing to one, the same number of passes for every process."""

import numpy as np
import pytest
import torch

from tailrisk.training.lorabatches import epoch_steps, inputs
from tailrisk.training.loradata import Example
from tailrisk.training.loraloss import pass_loss


@pytest.mark.parametrize(("world", "rows", "batch"), [(1, 8, 16), (2, 3, 16), (3, 100, 7)])
def test_counts_follow_the_weights(world, rows, batch):
    rng = np.random.default_rng(1)
    weights = rng.dirichlet(np.full(50, 0.3))
    epochs, seen = 2000, np.zeros(50)
    for _ in range(epochs):
        sizes, drawn = set(), np.zeros(50)
        steps = list(epoch_steps(weights, batch, world, rows, rng))
        for step in steps:
            assert len(step) == world
            sizes |= {len(own) for own in step}
            passes = [p for own in step for p in own]
            assert max(len(p.rows) for p in passes) <= rows
            assert sum(p.counts.sum() for p in passes) == pytest.approx(1.0)
            for p in passes:
                np.add.at(drawn, p.rows, (p.counts > 0).astype(float))
        assert len(sizes) == 1 and drawn.max() <= 1.0, "nothing is computed twice in an epoch"
        # Systematic resampling: counts are the nearest whole numbers of 50 weights.
        at_least_one = np.minimum(50 * weights, 1.0)
        assert (drawn[at_least_one >= 1.0] == 1.0).all()
        seen += drawn
    expected = np.minimum(50 * weights, 1.0)
    error = np.sqrt(np.maximum(expected * (1 - expected), 1e-6) / epochs)
    assert np.abs((seen / epochs - expected) / error).max() < 4.5


def test_one_step_holds_the_weights_exactly_where_all_are_alike():
    (step,) = epoch_steps(np.full(6, 1 / 6), 6, 2, 2, np.random.default_rng(0))
    rows = np.concatenate([p.rows for own in step for p in own if p.counts.any()])
    assert sorted(rows) == list(range(6))
    assert {float(c) for own in step for p in own for c in p.counts} == {1 / 6}


def test_texts_end_together():
    batch = inputs([Example((1, 5), (7, 2)), Example((1, 5, 6, 6), (8,))], torch.device("cpu"))
    assert batch.ids.tolist() == [[0, 1, 5, 7, 2], [1, 5, 6, 6, 8]]
    assert batch.mask.tolist() == [[0, 1, 1, 1, 1], [1, 1, 1, 1, 1]]
    assert batch.positions.tolist() == [[0, 0, 1, 2, 3], [0, 1, 2, 3, 4]]
    assert batch.labels.tolist() == [[7, 2], [0, 8]]
    assert batch.real.tolist() == [[True, True], [False, True]]
    assert batch.begun.tolist() == [[0, 1], [0, 0]]


def test_the_loss_is_a_sum_over_whole_answers_and_asks_the_base_every_time():
    """By hand: a model that gives every token the same chance, and a base that prefers token 1."""
    asked = []

    def even(batch):
        return torch.zeros(*batch.labels.shape, 10, dtype=torch.float64)

    def base(batch):
        asked.append(batch)
        logits = even(batch)
        logits[..., 1] = 2.0
        return logits

    examples, counts = [Example((1,), (7, 2)), Example((1,), (8,))], torch.tensor([0.25, 0.75])
    options = {"device": torch.device("cpu"), "temperature": 0.5}
    plain = pass_loss(even, None, examples, counts, kl=0.3, kl_after=0, **options)
    assert float(plain) == pytest.approx((0.25 * 2 + 0.75) * np.log(10))
    law = np.exp([4.0] + [0.0] * 9) / np.exp([4.0] + [0.0] * 9).sum()
    gap = float((law * np.log(law * 10)).sum())
    late = pass_loss(even, base, examples, counts, kl=0.3, kl_after=1, **options)
    assert float(late) == pytest.approx(float(plain) + 0.3 * 0.25 * gap)
    never = pass_loss(even, base, examples, counts, kl=0.3, kl_after=5, **options)
    assert float(never) == pytest.approx(float(plain)) and len(asked) == 2
