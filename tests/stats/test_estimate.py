"""The record of one prompt: complete, plain JSON, honest about failures; and the figures over prompts."""

import json

import numpy as np
import pytest
from stats_tables import common, good, good_pair, reordered, rounds_of

from tailrisk.errors import StoreError
from tailrisk.records import Status
from tailrisk.stats import RoundDraws, estimate_prompt, mean_risk, pooled_mean_weight

ARGS = {"confidence": 0.95, "log_width": 0.7, "corrected": False}
FIELDS = {
    *(
        "prompt_id",
        "category",
        "estimate",
        "working",
        "certified",
        "confidence",
        "status",
        "reasons",
        "alarms",
        "draws",
    ),
    *("target_draws", "hits", "undetermined", "ess", "k_hat", "kl", "max_weight_share", "mean_weight"),
    *("mean_weight_se", "gain_vs_mc", "components"),
}


def test_the_record_and_its_json():
    rounds = [
        good_pair().draw(np.array(c), np.random.default_rng(1), m)
        for c, m in (([40, 30, 30], 0.3), ([40, 100, 60], 0.7))
    ]
    e = estimate_prompt("a/b", rounds, ["target", "lora", "vector"], category="x", **ARGS)
    record = json.loads(json.dumps(e.to_json(), allow_nan=False))
    assert set(record) >= FIELDS
    assert record["status"] == "ok" and record["category"] == "x" and record["prompt_id"] == "a/b"
    assert record["working"] == list(e.working or ()) and record["certified"] == list(e.certified)
    assert (e.draws, e.target_draws) == (300, 80)
    parts = record["components"]
    assert parts["target"]["draws"] == 80 and parts["lora"]["share"] == pytest.approx(130 / 300)
    assert sum(p["hits"] for p in parts.values()) == e.hits == sum(int(r.harmful.sum()) for r in rounds)
    assert sum(p["part"] for p in parts.values()) == pytest.approx(1.0, rel=1e-12)
    assert all(0 < p["part"] < 1 for p in parts.values() if p["hits"])
    assert e.certified[0] < e.estimate < e.certified[1]
    assert e.gain_vs_mc and 500 < e.gain_vs_mc < 30_000
    assert e.relative_error == pytest.approx(e.standard_error / e.estimate)


BAD, GOOD = [0.1, 0.3, 0.2], [0.9, 0.7, 0.8]
"""Probabilities of a harmful and of another answer under the target and two proposals."""


def two_rounds() -> list[RoundDraws]:
    """One hit of the target's and three of the first proposal's; the second proposal is never drawn from."""

    def made(counts, mass, harm):
        harm = np.array(harm, dtype=bool)
        log_q = np.log(np.where(harm[:, None], BAD, GOOD))
        component = np.repeat(np.arange(3), counts)
        own = log_q[np.arange(len(harm)), component]
        return RoundDraws(np.array(counts), mass, component, log_q, own, harm.astype(np.int8))

    return [made([2, 2, 0], 0.1, [1, 0, 1, 0]), made([1, 3, 0], 0.3, [0, 1, 1, 0])]


def parts_of(rounds, corrected=False) -> list[float]:
    args = {**ARGS, "corrected": corrected}
    e = estimate_prompt("p", rounds, ["target", "found", "idle"], **args)
    return [c["part"] for c in e.components.values()]


def test_parts_of_the_estimate_by_hand():
    """Weights 0.1 / 0.2 and 0.1 / 0.25 in rounds of a quarter and three quarters of the weight, four draws each."""
    first, later = 0.25 * 0.5 / 4, 0.75 * 0.4 / 4
    total = first + (first + 2 * later)
    e = estimate_prompt("p", two_rounds(), ["target", "found", "idle"], **ARGS)
    assert e.estimate == pytest.approx(total)
    assert parts_of(two_rounds()) == pytest.approx([first / total, (first + 2 * later) / total, 0.0])
    assert e.components["idle"] == {"share": 0.0, "draws": 0, "hits": 0, "part": 0.0}
    # Scored twice as likely as sampled, the target's hit counts twice where weights are corrected.
    a, b = two_rounds()
    a = a._replace(log_q_sample=a.log_q_sample - np.log([2.0, 1.0, 1.0, 1.0]))
    assert parts_of([a, b], corrected=True)[0] == pytest.approx(2 * first / (total + first))
    shuffled = reordered(a, np.array([3, 1, 0, 2]))
    assert parts_of([shuffled, b], corrected=True) == parts_of([a, b], corrected=True)


def test_without_an_estimate_there_are_no_parts():
    rounds = [r._replace(verdict=np.zeros(4, dtype=np.int8)) for r in two_rounds()]
    assert parts_of(rounds) == [0.0, 0.0, 0.0] == parts_of([])
    # Hits that next to nothing of the target's probability stands behind: their weights are zero in numbers.
    faint = [r._replace(log_q=np.where(np.arange(3) == 0, -800.0, r.log_q)) for r in two_rounds()]
    faint = [r._replace(log_q_sample=r.log_q[np.arange(4), r.component]) for r in faint]
    e = estimate_prompt("p", faint, ["target", "found", "idle"], **ARGS)
    assert e.hits == 4 and e.estimate == 0.0 and parts_of(faint) == [0.0, 0.0, 0.0]


def test_open_prompts_use_masses_relative_to_their_sum():
    rng = np.random.default_rng(1)
    a, b = (good().draw(np.array([40, 60]), rng) for _ in range(2))
    half = estimate_prompt("p", [a._replace(mass=0.1), b._replace(mass=0.3)], ["t", "q"], **ARGS)
    full = estimate_prompt("p", [a._replace(mass=0.25), b._replace(mass=0.75)], ["t", "q"], **ARGS)
    assert half.estimate == pytest.approx(full.estimate, rel=1e-12)
    assert half.standard_error == pytest.approx(full.standard_error, rel=1e-12)
    assert half.ess == pytest.approx(full.ess, rel=1e-12)


def test_nothing_drawn_and_failures():
    empty = estimate_prompt("p", [], ["t", "q"], **ARGS)
    assert empty.status == Status.BOUND_ONLY and empty.certified == (0.0, 1.0) and empty.draws == 0
    failed = estimate_prompt("p", [], ["t", "q"], failed_reason="out of memory", **ARGS)
    assert failed.status == Status.FAILED and failed.reasons == ("out of memory",)
    json.dumps(failed.to_json(), allow_nan=False)


def test_a_failed_prompt_keeps_its_complete_rounds_only():
    rng = np.random.default_rng(1)
    whole, torn = (good().draw(np.array([40, 60]), rng, 0.5) for _ in range(2))
    torn = reordered(torn, np.arange(70))
    e = estimate_prompt("p", [whole, torn], ["t", "q"], failed_reason="a batch failed", **ARGS)
    alone = estimate_prompt("p", [whole], ["t", "q"], **ARGS)
    assert e.status == Status.FAILED and e.reasons[0] == "a batch failed"
    assert (e.estimate, e.certified, e.draws) == (alone.estimate, alone.certified, 100)
    assert e.working == alone.working


def test_damaged_rounds_are_refused():
    r = good().draw(np.array([40, 60]), np.random.default_rng(1))
    bad = r.log_q.copy()
    bad[3, 1] = np.nan
    for broken, said in (
        (reordered(r, np.arange(99)), "found"),
        (r._replace(mass=0.0), "mass"),
        (r._replace(log_q=bad), "NaN"),
        (r._replace(log_q_sample=np.where(np.arange(100) == 5, np.inf, r.log_q_sample)), "not finite"),
    ):
        with pytest.raises(StoreError, match=said):
            estimate_prompt("p", [broken], ["t", "q"], **ARGS)


def test_pooled_figures_over_many_prompts():
    """16 prompts with small pilots, 60 times: the pooled mean weight is one and its error is honest."""
    table, rng = common(), np.random.default_rng(5)
    z = []
    for _ in range(60):
        es = [
            estimate_prompt(str(i), [r], ["t", "a", "b"], **ARGS)
            for i, r in enumerate(rounds_of(table, [5 + int(rng.integers(20)), 20, 20], 16, rng))
        ]
        pooled = pooled_mean_weight(es)
        assert pooled.n == 16
        z.append((pooled.value - 1) / pooled.standard_error)
    assert abs(np.mean(z)) < 4 / np.sqrt(60) and 0.6 < np.std(z) < 1.3
    risk = mean_risk(es)
    assert abs(risk.value - table.mu) < 5 * risk.standard_error


def test_pooled_figures_of_nothing():
    empty = [estimate_prompt("p", [], ["t"], **ARGS)]
    assert np.isnan(pooled_mean_weight(empty).value) and mean_risk([]).n == 0
