"""The groups' section: what is said of each group, from a run folder and from records made by hand."""

from __future__ import annotations

import json
import math
import re

import pytest
from fakerun import CASES, Case, make_run
from typer.testing import CliRunner

from tailrisk.cli.app import app
from tailrisk.report import groupfigures, render_report, tables
from tailrisk.report.groups import groups_view, in_words
from tailrisk.report.material import read_summary

HOSTILE = "<b>kind</b>"
GROUPED = (
    Case("one", 0.05, group="one"),
    Case("one.loud", 0.3, group="one", perturbation="loud"),
    Case("one.odd", 0.05, group="one", perturbation=HOSTILE),
    Case("one.never", 1e-9, tilt=0.0, group="one", perturbation="never"),
    Case("one.broken", 1e-2, fails=True, group="one", perturbation="broken"),
    Case("two", 1e-9, tilt=0.0, group="two"),
    Case("two.loud", 0.3, group="two", perturbation="loud"),
    Case("alone", 0.05, group="alone"),
    Case("plain", 0.05),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("grouped") / "run", GROUPED)


@pytest.fixture(scope="module")
def view(run):
    summary = read_summary(run)
    found = groups_view(summary["groups"], tables.rows(summary["estimates"]))
    assert found is not None
    return found


def test_a_run_without_groups_has_no_section(tmp_path):
    folder = make_run(tmp_path / "run", CASES[:2])
    assert "groups" not in read_summary(folder)
    assert groups_view(None, []) is None
    assert "How far does the wording move it" not in render_report(folder).read_text()


def test_each_group_is_told_with_what_it_rests_on(view):
    lines = {x.name: x for x in view.lines}
    assert set(lines) == {"one", "two"}
    one, two = lines["one"], lines["two"]
    assert (one.measured, one.bounded, one.left_out) == (3, 1, 1) and one.base == "one"
    assert one.members[0].prompt_id == "one"
    assert one.verdict == "sensitive" and one.worst_kind == "loud"
    assert one.worst is not None and one.worst[1] <= 6.0 <= one.worst[2]
    assert one.spread is not None and one.spread[1] <= one.spread[0] <= one.spread[2]
    # The base has a bound only: no ratio, but certified ends tell them apart.
    assert two.worst is None and two.spread is None and two.verdict == "sensitive"
    assert two.at_least is not None and 1 < two.at_least < 0.3 / 1e-9 and "certified" in two.worst_said
    assert view.claim.startswith("In 2 of 2 groups")
    assert {k.kind: k.groups for k in view.kinds} == {"loud": 1, HOSTILE: 1}
    assert all(k.interval is None and k.raises == "one group only" for k in view.kinds)


def test_the_page_has_figures_tables_and_no_markup_of_others(run):
    page = render_report(run).read_text()
    section = page[page.index("How far does the wording move it") :]
    section = section[: section.index("</section>")]
    assert len(re.findall(r"<svg ", section)) == 2
    assert HOSTILE not in section and "&lt;b&gt;kind&lt;/b&gt;" in section
    assert "How far apart are the wordings of one request?" in section and section.count("one.loud") >= 2
    assert "left out (failed)" in section and "bound only" in section
    assert not any(f"prompt of {c.id}" in section for c in GROUPED)


def test_show_says_a_line_for_all_and_one_for_each_group(run):
    done = CliRunner().invoke(app, ["show", str(run)])
    assert done.exit_code == 0
    said = " ".join(done.output.split())
    assert "In 2 of 2 groups harmless rewording moves the probability" in said
    assert "group one: sensitive, spread ×" in said and "by loud; 3 of 5 members measured" in said
    done = CliRunner().invoke(app, ["show", str(run), "--json"])
    assert {g["group"] for g in json.loads(done.output)["groups"]["groups"]} == {"one", "two"}


def test_a_view_is_json_for_machines(run, view):
    told = json.loads(json.dumps(view.to_json(), allow_nan=False))
    assert told["claim"] == view.claim and told["groups"] == read_summary(run)["groups"]["groups"]


def test_an_unfinished_run_has_its_groups_too(tmp_path):
    folder = make_run(tmp_path / "run", GROUPED, finished=False)
    done = CliRunner().invoke(app, ["show", str(folder), "--json"])
    assert len(json.loads(done.output)["groups"]["groups"]) == 2


def record(**changes):
    spread = {"sd": 0.0, "low": 0.0, "high": 0.7, "variance": -0.1, "noise": 0.3, "p_value": 0.6}
    worst = {"id": None, "kind": None, "ratio": None, "low": None, "high": None, "basis": "none"}
    one = {
        "group": "g", "base": "g", "members": ["g"], "measured": 2, "bounded": 0, "left_out": 0,
        "verdict": "not shown", "spread": spread, "certified_ratio": None, "worst": worst,
    }  # fmt: skip
    return {"confidence": 0.9, "groups": [one | changes], "kinds": []}


def test_a_group_without_spread_is_not_called_steady():
    view = groups_view(record(), [])
    assert view is not None
    (line,) = view.lines
    assert line.spread == (1.0, 1.0, pytest.approx(math.exp(0.7)))
    said = in_words(line, view.confidence)
    assert "no spread shown, spread ×1.0 (1.0 to 2.0)" in said and "worst" not in said
    assert line.worst_said == "cannot be told"
    assert view.claim == (
        "In 0 of 1 group harmless rewording moves the probability by more than chance; in 1 no spread is shown."
    )
    unknown = groups_view(record(verdict="unknown", spread=None), [])
    assert unknown is not None and "in 1 it cannot be told" in unknown.claim


def test_kinds_say_what_may_be_said_with_all_of_them_in_mind():
    kinds = [
        {"kind": k, "groups": 5, "left_out": 1, "ratio": r, "low": r / 2, "high": r * 2, "between": 0.1,
         "p_value": p / 3, "adjusted": p}
        for k, r, p in (("up", 3.0, 0.01), ("down", 0.3, 0.04), ("none", 1.2, 0.06))
    ]  # fmt: skip
    view = groups_view(record() | {"kinds": kinds}, [])
    assert view is not None
    assert [k.raises for k in view.kinds] == [
        "raises the probability", "lowers the probability", "not shown to matter",
    ]  # fmt: skip
    assert groupfigures.kinds(view.kinds).startswith("<svg")
