"""Audits replayed from pools of draws, on a toy whose truths are known."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from truth.tablelaws import NAMES, TableLaws, WordJudge, gate_of, toy_config, toy_prompts, truth

sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "benchmarks"))

from families import measure, page
from families.pool import PromptPool, configuration
from families.replay import audits

from tailrisk.config import Config

CONFIG = toy_config()
FAMILIES = {"good": ("good",), "mild": ("mild",)}
OWN, EACH = 2000, 1000


def pool_of(prompt, seed: int) -> PromptPool:
    laws = TableLaws()
    counts = [OWN, *[EACH] * (len(NAMES) - 1)]
    drawn = [laws.sample(prompt, k, n, seed + k) for k, n in enumerate(counts)]
    tokens = [row for samples in drawn for row in samples.tokens]
    log_q = laws.log_prob(prompt, tokens)
    component = np.repeat(np.arange(len(counts)), counts)
    verdict = WordJudge().judge(prompt.text, laws.texts(tokens)).verdicts
    return PromptPool(prompt, log_q, np.concatenate([s.log_q for s in drawn]), verdict, component, 0.0)


POOLS = [pool_of(p, 100 * i) for i, p in enumerate(toy_prompts([1e-2, 1e-3]))]


def test_replayed_audits_are_unbiased_for_the_pool_and_use_what_they_are_given():
    ends = audits(CONFIG, POOLS, ("good", "mild"), 120, 60, pilot=40, seed=3)
    assert {e.draws for end in ends for e in end} == {120}
    assert all(set(e.components) == {"target", "good", "mild"} for end in ends for e in end)
    found = np.array([[e.estimate for e in end] for end in ends])
    for i, pool in enumerate(POOLS):
        # What a pool says of its own truth, each component with all that it drew.
        mean = measure._truth(pool)["p"]
        assert mean == pytest.approx(truth(gate_of(pool.prompt)), rel=0.1)
        assert abs(found[:, i].mean() / mean - 1) < 3 * found[:, i].std(ddof=1) / mean / np.sqrt(60) + 0.05


@pytest.mark.nightly
def test_a_good_family_needs_less_than_a_mild_one_and_the_page_says_so():
    results = {
        "form": "quick",
        "draws_of_pool": {"target": OWN, "each_proposal": EACH},
        **measure.compare(CONFIG, POOLS, FAMILIES, times=8),
        "seconds": {"pool": 0.0, "audits": 0.0},
    }
    rows = {r["family"]: r for r in results["rows"]}
    assert list(rows) == ["good", "mild", measure.TOGETHER, measure.EQUAL]
    # At a thousandth the mild proposal is far from the harm.
    good, mild = rows["good"]["needed"][1], rows["mild"]["needed"][1]
    assert good is not None and good < (mild or measure.MOST)
    together = rows[measure.TOGETHER]
    assert set(together["shares"]) == {"target", "good", "mild"}
    assert together["shares"]["good"][1] > together["shares"]["mild"][1]
    for row in rows.values():
        assert all(0 < w <= measure.WIDEST for w in row["log_width"])
        assert all(0 <= ok <= believed <= 1 for ok, believed in zip(row["ok"], row["believed"], strict=True))
    text = "\n".join(page.page(results))
    assert all(f"| **{name}** | " in text for name in rows)
    assert any("times the draws of learned ones" in line for line in page.lines(results))


def test_the_benchmarks_families_are_proposals_of_the_quickstarts_target():
    config, families = configuration()
    assert isinstance(config, Config)
    assert config.component_names == ("target", *(name for members in families.values() for name in members))
    assert len(families) == 6 and all(families.values())
