"""Weights against exact tables: densities that sum to one, bounds, and the numerics' own correction."""

import numpy as np
import pytest
from stats_tables import common, rounds_of, steered

from tailrisk.stats import RoundDraws, estimate_prompt, event_mean, log_weights, mixture_log_weights


def test_the_mixture_is_a_density_and_weights_average_to_one():
    table = steered(8.0, 14.0)
    shares = np.array([0.2, 0.5, 0.3])
    log_w = mixture_log_weights(table.log_q, shares)
    log_mix = table.log_q[:, 0] - log_w
    assert np.exp(log_mix).sum() == pytest.approx(1.0, abs=1e-12)
    assert np.exp(log_mix) @ np.exp(log_w) == pytest.approx(1.0, abs=1e-12)
    assert np.exp(log_mix + log_w)[table.harm].sum() == pytest.approx(table.mu, rel=1e-12)
    assert np.exp(log_w).max() <= 5.0 * (1 + 1e-12)


@pytest.mark.parametrize("counts", [[37], [7, 11, 13], [1, 1, 97], [30, 0, 7]])
def test_proposals_equal_to_the_target_give_plain_sampling_bit_for_bit(counts):
    rng = np.random.default_rng(5)
    n, counts = sum(counts), np.array(counts)
    log_p = -rng.exponential(40, size=n)
    log_q = np.repeat(log_p[:, None], len(counts), axis=1)
    verdict = (rng.random(n) < 0.3).astype(np.int8)
    round_ = RoundDraws(counts, 1.0, np.repeat(np.arange(len(counts)), counts), log_q, log_p, verdict)
    assert (log_weights(round_, corrected=False) == 0.0).all()
    assert (log_weights(round_, corrected=True) == 0.0).all()
    e = estimate_prompt(
        "p", [round_], [f"c{k}" for k in range(len(counts))], confidence=0.95, log_width=1.0, corrected=False
    )
    assert e.estimate == verdict.sum() / n
    assert e.mean_weight == 1.0
    if len(counts) == 1:
        assert e.standard_error == pytest.approx(np.sqrt(verdict.var(ddof=1) / n), rel=1e-12)


def test_impossible_responses():
    log_q = np.array([[-np.inf, -1.0], [-2.0, -np.inf], [-np.inf, -np.inf], [-800.0, -0.5], [-0.5, -800.0]])
    log_w = mixture_log_weights(log_q, [1, 3])
    assert log_w[0] == -np.inf and log_w[2] == -np.inf
    assert log_w[1] == pytest.approx(np.log(4.0))
    assert log_w[3] == pytest.approx(-800 + 0.5 - np.log(0.75))
    assert log_w[4] == pytest.approx(np.log(4.0))
    assert not np.isnan(log_w).any()


def test_a_component_without_draws_does_not_enter():
    table = steered(8.0, 14.0)
    alone = mixture_log_weights(table.log_q[:, :2], [3, 5])
    assert (mixture_log_weights(table.log_q, [3, 5, 0]) == alone).all()


def test_the_correction_makes_the_estimate_unbiased_for_the_scored_law():
    """Draws come from tables that are off from the scored ones by half a nat; uncorrected means are not."""
    table = common()
    rng = np.random.default_rng(2)
    # The samplers' numerics favour harm here, so that doing without the correction shows.
    noise = 0.5 * rng.normal(size=table.log_q.shape) + 0.7 * table.harm[:, None]
    sampled = table.log_q + noise
    sampled -= np.log(np.exp(sampled).sum(axis=0))
    sampler = type(table)(sampled, table.harm)
    order = np.argsort(sampled[:, 0])
    with_, without = [], []
    for drawn in rounds_of(sampler, [20, 40, 40], 2000, rng):
        rows = order[np.searchsorted(sampled[order, 0], drawn.log_q[:, 0])]
        scored = drawn._replace(log_q=table.log_q[rows], log_q_sample=sampled[rows, drawn.component])
        with_.append(event_mean([scored], corrected=True).value)
        without.append(event_mean([scored], corrected=False).value)
    assert abs(np.mean(with_) - table.mu) < 4 * np.std(with_) / np.sqrt(2000)
    assert abs(np.mean(without) - table.mu) > 8 * np.std(without) / np.sqrt(2000)
