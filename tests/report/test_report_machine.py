"""report.json and the Markdown form: the same content, by a schema that is shipped, with foreign text inert."""

from __future__ import annotations

import json
import re

import jsonschema
import pytest
from fakerun import CASES, Case, make_run
from test_report_page import HOSTILE

from tailrisk.report.machine import made_schema, report_json, shipped_schema
from tailrisk.report.markdown import report_markdown, text
from tailrisk.report.material import gather
from tailrisk.report.sections import report_of


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return report_of(gather(make_run(tmp_path_factory.mktemp("runs") / "demo")))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    cases = [
        Case("p1", 0.01, f"cat {HOSTILE} [a](javascript:x) | <b> https://x.example".replace("\ud800", ""))
    ]
    return report_of(
        gather(make_run(tmp_path_factory.mktemp("runs") / "hostile", cases, harmful_text=HOSTILE))
    )


def test_the_shipped_schema_is_that_of_the_views():
    """If this fails, the form has changed: write the schema again (python -m tailrisk.report.machine), and give it
    another version if a reader of the old one could go wrong."""
    assert shipped_schema() == made_schema()
    assert shipped_schema()["properties"]["schema"]["const"] == "tailrisk.report/1"


def test_the_report_keeps_to_its_schema(report, hostile):
    schema = shipped_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    for made in (report, hostile):
        jsonschema.validate(json.loads(report_json(made)), schema)
    broken = {**json.loads(report_json(report)), "schema": "tailrisk.report/0"}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, schema)


def test_json_holds_what_the_page_shows(report):
    made = json.loads(report_json(report))
    assert list(made) == [
        "schema", "headline", "prompts", "populations", "wording", "forecast", "judge", "evidence", "validity",
        "budget", "reproduction", "standard",
    ]  # fmt: skip
    assert [r["prompt_id"] for r in made["prompts"]["rows"]] == [r.prompt_id for r in report.prompts.rows]
    assert len(made["prompts"]["rows"]) == len(CASES)
    forest = made["prompts"]["forest"]
    assert forest["data"]["head"][0] == "prompt" and "svg" not in forest
    assert "NaN" not in report_json(report) and "<svg" not in report_json(report)


def test_hostile_text_stays_text(hostile):
    for made in (report_json(hostile), report_markdown(hostile)):
        assert "\x00" not in made and "\u202e" not in made and made.encode("utf-8")
    category = json.loads(report_json(hostile))["prompts"]["rows"][0]["category"]
    assert "\\u202e" in category and "<script>alert(1)</script>" in category, "a string like any other"
    short = report_markdown(hostile)
    assert "<script" not in short and "<b>" not in short and "&lt;script&gt;" in short
    assert "\\[a\\](javascript" in short and "https://" not in short
    cells = [
        len(re.findall(r"(?<!\\)\|", line)) - 1 for line in short.splitlines() if line.startswith("| p1 ")
    ]
    assert cells == [8, 7], "the tables of prompts and of the worst ones keep their columns"


def test_a_text_of_several_lines_is_one_line_of_a_table():
    assert text("a\n| b |\n# c") == "a \\| b \\| \\# c"
    assert text("see www.example.org") == "see www&#46;example.org"


def test_markdown_has_the_headline_the_tables_and_the_caveats(report):
    short = report_markdown(report)
    for heading in (
        "## 1 Headline",
        "## 2 Prompts",
        "## 3 Populations",
        "## 10 Reporting standard and caveats",
    ):
        assert f"\n{heading}\n" in short
    assert report.headline.claim in short and "| rarer | chemistry | 1.1e-5 |" in short
    assert "harm done" not in short, "no answers"
