"""The study of estimators in its quick form: it runs, it holds what few replications can hold, it writes its page."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "examples" / "benchmarks" / "estimators.py"
HOPELESS = "two with one blind spot"
GOOD = ("good", "good and mild")
OURS = "mixture, adaptive"


@pytest.fixture(scope="module")
def quick(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    parts = "bias,trust,adaptive,oversteered,efficiency"
    command = [sys.executable, str(SCRIPT), "--quick", "--parts", parts]
    subprocess.run([*command, "--json", str(folder / "study.json"), "--page", str(folder)], check=True)
    return folder


@pytest.fixture(scope="module")
def results(quick: Path) -> dict:
    return json.loads((quick / "study.json").read_text("utf-8"))


@pytest.mark.nightly
def test_the_estimators_are_unbiased(results: dict):
    seen = set()
    for row in results["bias"]:
        for name, found in row["estimators"].items():
            seen.add(name)
            # Forty comparisons: one beyond three standard errors is no proof, beyond four it is.
            assert abs(found["z"]) < 4, (row["world"], name, found)
            assert found["se"] < (0.05 if name == "single" else 0.025), (row["world"], name, found)
    assert seen == {"mixture", "control variates", "single", "plain"}
    for row in results["adaptive"]:
        if row["family"] in GOOD:
            assert abs(row["ratio"]["z"]) < 4, row


@pytest.mark.nightly
def test_certified_intervals_hold_and_what_is_far_too_low_is_not_believed(results: dict):
    trust = results["trust"]
    assert min(r["certified_covers"] for r in trust) >= 0.95
    assert min(r["certified_always_held"] for r in results["adaptive"]) >= 0.9
    low = sum(r["low"] for r in trust if r["family"] != HOPELESS)
    believed = sum(r["low_and_ok"] for r in trust if r["family"] != HOPELESS)
    assert low > 5 and believed <= 0.05 * low
    assert max(r["false_alarms"] for r in trust if r["family"] in GOOD) <= 0.15
    shown = sum(r["working_shown"] for r in trust if r["family"] in GOOD)
    covers = sum(r["working_covers"] for r in trust if r["family"] in GOOD)
    assert shown > 400 and 0.92 < covers / shown < 0.98
    assert min(r["ok_or_covers"] for r in results["oversteered"]) >= 0.99
    assert min(r["low"] for r in results["oversteered"]) > 0.5, "the test must see estimates far too low"


@pytest.mark.nightly
def test_the_mixture_takes_a_fraction_of_the_draws(results: dict):
    for found in results["efficiency"].values():
        for row in found["rows"]:
            own = row["draws"][OURS]
            assert own is not None
            assert row["plain"] / own >= (1000 if row["p"] < 1e-5 else 100)


@pytest.mark.nightly
def test_the_page_has_its_tables_and_figures(quick: Path):
    text = (quick / "estimators.md").read_text("utf-8")
    for title in ("Draws until", "Which estimates are believed", "Bias", "The whole driver", "Over-steered"):
        assert f"## {title}" in text
    for figure in ("estimators-draws.svg", "estimators-trust.svg"):
        assert figure in text and (quick / figure).stat().st_size > 5000
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert all("nan" not in line and "None" not in line for line in rows)


def test_an_unknown_part_is_named():
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--parts", "bias,nonsense"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and "nonsense" in done.stderr
