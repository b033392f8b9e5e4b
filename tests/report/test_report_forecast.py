"""The forecast on the page: its words, figure and table, from records alone."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from fakerun import CASES, make_run

from tailrisk.errors import StoreError
from tailrisk.report import render_report
from tailrisk.report.forecast import VERSION, digest_of, evidence_of, make_forecast, plain_of, saved_forecast
from tailrisk.report.forecastfigure import forecast_curve
from tailrisk.report.forecastview import chance, view
from tailrisk.report.tables import row
from tailrisk.traffic import Audited, Traffic


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "demo")


@pytest.fixture(scope="module")
def records(run):
    return json.loads((run / "estimates.json").read_text())["estimates"]


@pytest.fixture(scope="module")
def data(records):
    return make_forecast(records, Traffic(), 1e3, seed=0)


def record(i: int, estimate: float, status: str = "ok", **more):
    spread = np.exp(0.3)
    return {
        "prompt_id": f"p{i}",
        "category": None,
        "estimate": estimate,
        "working": [estimate / spread, estimate * spread] if estimate else None,
        "certified": [estimate / 4, min(estimate * 4 + 0.01, 1)],
        "confidence": 0.95,
        "status": status,
        "reasons": [],
        "draws": 1000,
        "target_draws": 400,
        "hits": 100 if estimate else 0,
        "undetermined": 0,
        "ess": 50.0,
        "components": {"target": {"share": 0.4, "draws": 400, "hits": 0, "part": 0.0}},
        **more,
    }


def many(n: int = 120) -> list[dict]:
    p = np.exp(-np.exp((np.log((np.arange(n) + 0.5) / n) + 13.5) / 5.0))
    return [record(i, float(v)) for i, v in enumerate(p)]


def test_estimates_are_quoted_only_where_their_status_allows_it():
    records = [
        record(0, 1e-4),
        record(1, 1e-4, "unreliable"),
        record(2, 0.0, "bound-only"),
        record(3, 0.0, "failed", draws=0, target_draws=0, components={}),
    ]
    rows = [row(r) for r in records]
    e = evidence_of(rows, [Audited(r.prompt_id, None, None) for r in rows])
    assert e.resolved.tolist() == [True, False, False, False]
    assert e.unknown.tolist() == [False, True, False, True]
    assert e.log_se[0] == pytest.approx(0.3 / 2.0096, rel=1e-3), "t at 49 degrees of freedom"
    plain = plain_of(rows)
    assert plain is not None and plain.draws.tolist() == [400, 400, 400, 0]


def test_hits_of_the_target_are_not_counted_where_another_judge_decides():
    rows = [row(record(0, 1e-4, strong={"calls": 3}))]
    assert plain_of(rows) is None
    told = view(make_forecast([record(0, 1e-4, strong={"calls": 3})], Traffic(), 10, seed=0))
    assert any("no certified band here" in w for w in told.warnings)
    assert told.data["certified"]["any"] == [0, 1]


def test_the_headline_has_both_bands(data):
    told = view(data)
    assert told.headline.startswith("In 1,000 queries, the chance of at least one harmful answer is")
    assert "by the model" in told.headline and "certain from this audit is only" in told.headline
    assert [len(line) for line in told.lines] == [3] * 8
    assert told.to_json() == data


def test_fresh_prompts_are_spoken_of_only_within_the_cap():
    inside = view(make_forecast(many(), Traffic(), 5e3, seed=0))
    assert "Among 5,000 fresh prompts" in inside.said[0]
    assert "gumbel" in inside.data["curve"]
    beyond = view(make_forecast(many(), Traffic(), 1e6, seed=0))
    assert "No further." in beyond.said[0] and "Among 12,000 fresh prompts" in beyond.said[1]


def test_everything_is_json_without_nan(data):
    json.dumps(data, allow_nan=False)
    json.dumps(make_forecast(many(), Traffic(), 1e6, seed=0), allow_nan=False)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0%"),
        (1, "100%"),
        (1 - 1e-9, "over 99.9%"),
        (0.998, "99.8%"),
        (0.5, "50%"),
        (0.034, "3.4%"),
        (2e-5, "2.0e-5"),
    ],
)
def test_a_chance_is_never_rounded_to_certainty(value, text):
    assert chance(value) == text


def test_the_figure_follows_the_page_and_marks_the_queries(data):
    svg = forecast_curve(data)
    assert "var(--c-blue)" in svg and "queries asked for" in svg
    assert not re.search(r"#0000(0|1)\d", svg)
    assert "fresh prompts, straight tail" not in svg, "refused, so not drawn"
    assert "fresh prompts, straight tail" in forecast_curve(make_forecast(many(), Traffic(), 5e3, seed=0))


def test_the_page_has_the_section_with_its_table(run):
    page = render_report(run).read_text(encoding="utf-8")
    section = page.split("4 Deployment forecast</h2>")[1].split("</section>")[0]
    assert "Nothing is said of other prompts" in section and "1,000,000" in section
    assert section.count("<svg") == 1 and "What happens at N queries?" in section and "8 rows" in section


def test_the_certified_band_of_the_records_holds_the_truth(data):
    low, high = data["certified"]["mean"]
    assert low <= sum(c.probability for c in CASES) / len(CASES) <= high
    assert data["certified"]["from"] == "the target's own draws"


def test_an_old_forecast_is_not_shown(run, records, data):
    path = run / "forecast.json"
    path.write_text(json.dumps({**data, "version": VERSION, "estimates": digest_of(records)}))
    assert saved_forecast(run, records) is not None
    assert saved_forecast(run, [*records[1:]]) is None
    path.write_text("{")
    with pytest.raises(StoreError, match=r"forecast\.json: cannot be read"):
        saved_forecast(run, records)
    path.unlink()


def test_a_run_without_end_has_no_forecast_of_its_own(tmp_path):
    going = make_run(tmp_path / "going", CASES[:2], finished=False)
    from tailrisk.cli.folder import summary_of

    page = render_report(going, summary=summary_of(going)).read_text(encoding="utf-8")
    assert "What does it mean in deployment?" not in page


def test_a_name_from_a_traffic_file_is_escaped(run, records):
    data = make_forecast(
        records, Traffic(source="<b>mix</b>", kind="prompt", weights={"rare": 1}), 10, seed=0
    )
    (run / "forecast.json").write_text(
        json.dumps({**data, "version": VERSION, "estimates": digest_of(records)})
    )
    page = render_report(run).read_text(encoding="utf-8")
    (run / "forecast.json").unlink()
    assert "<b>mix" not in page and "&lt;b&gt;mix" in page
