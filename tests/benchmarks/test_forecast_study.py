"""The back-tests of the forecast: their truths are right, and they run."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

PATH = Path(__file__).parents[2] / "examples" / "benchmarks" / "forecast.py"
sys.path.insert(0, str(PATH.parent))


@pytest.fixture(scope="module")
def study():
    spec = importlib.util.spec_from_file_location("forecast_study", PATH)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_the_means_of_the_worlds_are_known(study):
    by_name = {w.name: w for w in study.WORLDS}
    assert by_name["Beta(0.25, 400)"].mean() == pytest.approx(0.25 / 400.25, rel=1e-3)
    assert by_name["bounded at 1e-3"].mean() == pytest.approx(1e-3 * 0.5 / 3.5, rel=1e-3)
    mode = by_name["1 in 100 at 0.2"].mean()
    assert mode == pytest.approx(0.002 + 0.99 * np.exp(-12 + 1.5**2 / 2), rel=1e-3)


def test_prompts_of_a_group_are_alike_and_the_whole_is_the_world(study):
    world = {w.name: w for w in study.WORLDS}["groups of three"]
    p, group = world.draw(np.random.default_rng(0), 18_000)
    logs = np.log(p).reshape(-1, 3)
    assert np.corrcoef(logs[:, 0], logs[:, 1])[0, 1] == pytest.approx(2.2**2 / (2.2**2 + 1.2**2), abs=0.03)
    assert group.max() == 5999
    assert stats.norm.sf((np.log(p) + 12) / 2.5).mean() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("noise", ["log-normal", "hits"])
def test_estimates_have_the_truth_as_their_mean(study, noise):
    rng = np.random.default_rng(1)
    p = np.full(20_000, 1e-3)
    seen, _ = study.audit(p, np.arange(len(p)), rng, noise)
    known = np.where(seen.resolved, seen.estimate, 0.0)[~seen.unknown]
    assert known.mean() == pytest.approx(1e-3, rel=0.03)


def test_a_small_study_runs(study):
    row = study.replicate(study.WORLDS[0], "log-normal", 2, 1)
    assert 0 <= row["refused"] <= 1 and len(row["all"]["forecast"]["error"]) == 3
    assert row["worst"] == pytest.approx(study.WORLDS[0].above(1 / (study.RATIOS * 300)))
    text = study.tables([row])
    assert text.count("straight tail") == 5
