"""tailrisk forecast: what it prints and saves, its exit codes, what it refuses; and the report that shows it."""

from __future__ import annotations

import json

import pytest
from fakerun import CASES, Case, make_run

from tailrisk.cli import run
from tailrisk.report import render_report


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "demo")


def test_it_says_what_is_certain_what_is_modelled_and_what_is_not_known(finished, capfd):
    assert run(["forecast", str(finished), "--queries", "1e2"]) == 0
    out = capfd.readouterr().out
    assert "certified" in out and "model-based" in out
    assert "Of 20% of the traffic this audit knows nothing" in out
    assert "In 20% of the traffic no harm was seen" in out
    assert "has only 60% of the traffic in it" in out
    assert "Nothing is said of other prompts: there are 5 independent base prompts" in out


def test_the_saved_forecast_is_the_printed_one_and_holds_the_truth(finished, capfd):
    assert run(["forecast", str(finished), "--queries", "100", "--json"]) == 0
    told = json.loads(capfd.readouterr().out)
    assert told == json.loads((finished / "forecast.json").read_text())
    truth = sum(c.probability for c in CASES) / len(CASES)
    low, high = told["certified"]["mean"]
    assert low < truth < high
    assert told["certified"]["from"] == "every draw of the run"
    covered = sum(c.probability for c in CASES[:3]) / len(CASES)
    assert told["model"]["mean"][0] < covered < told["model"]["mean"][2]


def test_ends_that_hold_together_are_wider_than_each_prompts_own(finished, capfd):
    run(["forecast", str(finished), "--json"])
    told = json.loads(capfd.readouterr().out)
    own = [e["certified"] for e in json.loads((finished / "estimates.json").read_text())["estimates"]]
    assert 0 < told["certified"]["mean"][0] < sum(low for low, _ in own) / 5


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--queries", "100", "--fail-above", "0.5"], 4),
        (["--queries", "100", "--fail-above", "1"], 0),
        (["--queries", "1", "--fail-above", "0.1", "--model-based"], 0),
        (["--queries", "1", "--fail-above", "0.001", "--model-based"], 4),
    ],
)
def test_a_limit(finished, arguments, code, capfd):
    assert run(["forecast", str(finished), *arguments]) == code
    assert ("is above the limit" in capfd.readouterr().out) is (code == 4)


def test_without_a_model_a_model_based_limit_is_exceeded(tmp_path):
    folder = make_run(tmp_path / "run", [Case("none-seen", 1e-9, tilt=0.0)])
    assert run(["forecast", str(folder), "--queries", "1", "--fail-above", "0.9"]) == 0
    assert run(["forecast", str(folder), "--queries", "1", "--fail-above", "0.9", "--model-based"]) == 4


def test_a_traffic_mix(finished, tmp_path, capfd):
    mix = tmp_path / "mix.yaml"
    mix.write_text("categories: {everyday: 1, medicine: 3}\nassumed_harmless: 0.5\n")
    assert run(["forecast", str(finished), "--traffic", str(mix), "--json"]) == 0
    told = json.loads(capfd.readouterr().out)
    assert told["model"]["mean"][1] == pytest.approx(0.125 * 0.05 + 0.375 * 1e-3, rel=0.2)
    assert told["traffic"]["unknown"] == 0 and told["model"]["covers"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("text", "said"), [("categories: {medecine: 1}", "did you mean 'medicine'"), ("a: 1", "unknown key 'a'")]
)
def test_a_wrong_mix_is_refused(finished, tmp_path, text, said, capfd):
    mix = tmp_path / "mix.yaml"
    mix.write_text(text)
    assert run(["forecast", str(finished), "--traffic", str(mix)]) == 2
    assert said in capfd.readouterr().err


def test_no_run_no_forecast(tmp_path, capfd):
    assert run(["forecast", str(tmp_path / "none")]) == 1
    assert "no such folder" in capfd.readouterr().err
    for queries in ("0", "inf", "nan"):
        assert run(["forecast", str(tmp_path), "--queries", queries]) == 2


def test_a_run_still_going_is_forecast_and_said_to_be(tmp_path, capfd):
    going = make_run(tmp_path / "going", CASES[:3], finished=False)
    assert run(["forecast", str(going), "--queries", "10"]) == 0
    assert "the run is not finished" in capfd.readouterr().out


def test_the_report_shows_the_saved_forecast(finished, tmp_path):
    mix = tmp_path / "mix.json"
    mix.write_text('{"prompts": {"rare": 1}}')
    run(["forecast", str(finished), "--queries", "777", "--traffic", str(mix)])
    page = render_report(finished).read_text(encoding="utf-8")
    assert "In 777 queries" in page and "shares by prompt from" in page
    (finished / "forecast.json").unlink()
    page = render_report(finished).read_text(encoding="utf-8")
    assert "In 1,000,000 queries" in page and "all base prompts equally often" in page
