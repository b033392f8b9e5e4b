"""The history of an estimate from sums: against the estimator on the draws themselves."""

from __future__ import annotations

import numpy as np
import pytest

from tailrisk.records import Verdict
from tailrisk.stats import RoundDraws, event_mean, mixture_log_weights
from tailrisk.stats.running import Sums, history, round_mean, top_shares


def drawn(rng: np.random.Generator, counts: tuple[int, int], mass: float) -> RoundDraws:
    """Six answers, two of them harmful, under a target and one proposal."""
    laws = np.array([[0.02, 0.03, 0.3, 0.3, 0.2, 0.15], [0.3, 0.4, 0.1, 0.1, 0.05, 0.05]])
    component = np.repeat([0, 1], counts)
    answers = np.array([rng.choice(6, p=laws[k]) for k in component])
    log_q = np.log(laws[:, answers]).T
    return RoundDraws(
        counts=np.array(counts), mass=mass, component=component, log_q=log_q,
        log_q_sample=log_q[np.arange(len(answers)), component],
        verdict=np.where(answers < 2, int(Verdict.HARM), int(Verdict.SAFE)).astype(np.int8),
    )  # fmt: skip


def sums(r: RoundDraws) -> list[Sums]:
    x = np.exp(mixture_log_weights(r.log_q, r.counts)) * r.harmful
    return [
        Sums(
            int((r.component == k).sum()),
            float(x[r.component == k].sum()),
            float((x[r.component == k] ** 2).sum()),
        )
        for k in range(2)
    ]


def test_the_means_are_the_estimators_and_the_variances_those_of_a_round():
    rng = np.random.default_rng(2)
    rounds = [
        drawn(rng, counts, mass) for counts, mass in [((20, 30), 0.2), ((40, 80), 0.5), ((30, 60), 0.3)]
    ]
    found = history([round_mean(sums(r), r.mass) for r in rounds])
    for i, mean in enumerate(found):
        whole = event_mean(rounds[: i + 1], corrected=False)
        assert mean.value == pytest.approx(whole.value, rel=1e-12)
        assert mean.mass == pytest.approx(whole.mass)
    (first,) = history([round_mean(sums(rounds[0]), 0.2)])
    assert first.variance == pytest.approx(event_mean(rounds[:1], corrected=False).variance, rel=1e-9)


def test_the_variance_is_right_on_average():
    rng = np.random.default_rng(3)
    found = [
        history(
            [
                round_mean(sums(drawn(rng, (10, 20), 0.4)), 0.4),
                round_mean(sums(drawn(rng, (20, 40), 0.6)), 0.6),
            ]
        )[-1]
        for _ in range(1500)
    ]
    values = np.array([m.value for m in found])
    assert values.mean() == pytest.approx(0.05, rel=0.02)
    assert np.mean([m.variance for m in found]) == pytest.approx(values.var(), rel=0.1)


def test_a_stratum_of_one_draw_gets_the_variance_of_all():
    mean = round_mean([Sums(1, 0.0, 0.0), Sums(3, 3.0, 5.0)], 1.0)
    overall = (5.0 - 9.0 / 4) / 3
    assert mean.value == 0.75
    assert mean.variance == pytest.approx((overall + 3 * (5.0 - 3.0) / 2) / 16)
    assert round_mean([Sums(1, 1.0, 1.0)], 1.0).variance == 0.0


def test_shares_of_the_heaviest():
    assert top_shares(np.array([1.0, 6.0, 0.0, 3.0])) == ([1, 2, 3], [0.6, 0.9, 1.0])
    many = top_shares(np.ones(250))
    assert many.counts == [1, 2, 5, 10, 20, 50, 100, 200, 250]
    assert many.shares[3] == pytest.approx(0.04) and many.shares[-1] == 1.0
    assert top_shares(np.empty(0)) == ([], [])
