"""The heat map: the right numbers in the right cells, blanks where a prompt has no such component, bounds."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from typing import Any

import pytest
from fakerun import make_run

from tailrisk.report import render_report
from tailrisk.report.figures import MOST_ROWS
from tailrisk.report.heatmap import MOST_COLUMNS, heat_map
from tailrisk.report.tables import percent, rows
from tailrisk.store import Manifest

HOSTILE = '"><script>alert(1)</script><b onmouseover="x()">\u202e{{7*7}}'
TITLE = "Which proposal worked where?"


class HeatTable(HTMLParser):
    """``cells[row][column]``: attributes and text of the table of class ``heatmap``, its head included;
    ``data``: those of the table after it; ``text`` and ``tags``: of the page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.cells: list[list[dict[str, Any]]] = []
        self.data: list[list[dict[str, Any]]] = []
        self.text, self.tags = "", set()
        self._rows: list[list[dict[str, Any]]] | None = None
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.tags.add(tag)
        if tag == "table" and "heatmap" in (given.get("class") or ""):
            self._rows = self.cells
        elif tag == "table" and self.cells and not self.data:
            self._rows = self.data
        if self._rows is None:
            return
        if tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th"):
            self._rows[-1].append({"style": None, **given, "text": ""})
        elif tag == "small":
            self._rows[-1][-1]["text"] += "|"

    def handle_endtag(self, tag):
        if tag == "table":
            self._rows = None

    def handle_data(self, data):
        self.text += data
        if self._rows and self._rows[-1]:
            self._rows[-1][-1]["text"] += data.strip()

    @property
    def head(self) -> list[str]:
        return [c["text"] for c in self.cells[0][2:]]

    def line(self, prompt: str) -> list[dict[str, Any]]:
        """The cells of a prompt's line; its name and its status come first."""
        (found,) = [line for line in self.cells[1:] if line[0]["text"] == prompt]
        return found

    def texts(self, prompt: str) -> list[str]:
        return [c["text"] for c in self.line(prompt)[2:]]

    def data_of(self, prompt: str) -> list[list[str]]:
        return [[c["text"] for c in line[1:]] for line in self.data if line[0]["text"] == prompt]


def entry(part: float | None, share: float, hits: int = 5) -> dict[str, float]:
    made = {"share": share, "draws": round(100 * share), "hits": hits}
    return made if part is None else {**made, "part": part}


def record(prompt: str, components: dict[str, dict[str, float]], **changes: Any) -> dict[str, Any]:
    return {
        "prompt_id": prompt,
        "estimate": 1e-3,
        "working": [5e-4, 2e-3],
        "certified": [1e-4, 0.1],
        "status": "ok",
        "draws": 100,
        "target_draws": 20,
        "hits": 10,
        "mean_weight": 1.0,
        "components": components,
        **changes,
    }


NOTHING = {"estimate": 0.0, "working": None, "certified": [0.0, 0.1], "status": "bound-only", "hits": 0}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "demo")


@pytest.fixture
def page_of(run, monkeypatch):
    """The page of records by hand, of a run whose components have the given names."""

    def page(records, names=("target", "rude", "sure")):
        monkeypatch.setattr(Manifest, "component_names", property(lambda _: tuple(names)))
        return render_report(run, summary={"audit": {}, "estimates": records}).read_text(encoding="utf-8")

    return page


def test_the_map_of_a_run_has_its_parts_and_shares(run):
    shown = HeatTable(render_report(run).read_text(encoding="utf-8"))
    assert shown.head == ["target", "rude", "sure"]
    listed = json.loads((run / "estimates.json").read_text())["estimates"]
    assert len(shown.cells) == 1 + 4 + 1, "a head, the prompts that did not fail, and the means"
    for e in listed:
        if e["status"] == "failed":
            assert e["prompt_id"] not in [line[0]["text"] for line in shown.cells]
            continue
        wanted = [
            f"{percent(c['part']) if e['hits'] else '–'}|{percent(c['share'])}"
            for c in e["components"].values()
        ]
        assert shown.texts(e["prompt_id"]) == wanted
    assert "Failed prompts are left out (1)" in shown.text
    assert shown.line("none-seen")[1]["text"] == "no hits" and shown.line("rare")[1]["text"] == "ok"


def test_colour_bar_number_and_title_say_the_same(page_of):
    records = [
        record("p", {"target": entry(0.0, 0.25, 0), "rude": entry(0.625, 0.05), "sure": entry(0.375, 0.7)})
    ]
    target, rude, sure = HeatTable(page_of(records)).line("p")[2:]
    assert (target["style"], target["text"]) == ("--v:0.000", "0%|25%"), "it had draws and found nothing"
    assert (rude["style"], rude["text"]) == ("--v:0.625", "62%|5.0%")
    assert rude["title"] == "rude: 62% of the estimate from 5.0% of the draws (5 hits in 5 draws)"
    assert sure["title"] == "sure: 38% of the estimate from 70% of the draws (5 hits in 70 draws)"
    assert '<small style="--s:0.050">' in page_of(records)


def test_a_component_of_other_prompts_is_blank_and_one_without_draws_is_a_dash(page_of):
    records = [
        record("one", {"target": entry(0.1, 0.2), "a": entry(0.9, 0.8)}),
        record("two", {"target": entry(0.0, 0.2, 0), "b": entry(1.0, 0.8), "idle": entry(0.0, 0.0, 0)}),
        record("three", {"target": entry(0.0, 0.2, 0), "c": entry(0.0, 0.8, 0)}, **NOTHING),
        record("four", {"target": entry(1.0, 0.5), "c": entry(0.0, 0.0, 0), "a": entry(0.0, 0.5, 0)}),
    ]
    shown = HeatTable(page_of(records, ["target", "a", "never", "b", "idle", "c"]))
    assert shown.head == ["target", "a", "b", "c"], "nobody drew from the others"
    assert shown.texts("one") == ["10%|20%", "90%|80%", "", ""]
    assert shown.texts("two") == ["0%|20%", "", "100%|80%", ""]
    assert shown.texts("three") == ["–|20%", "", "", "–|80%"]
    assert shown.texts("four") == ["100%|50%", "0%|50%", "", "–|0%"]
    assert shown.line("four")[-1]["title"] == "c: no draws"
    assert shown.line("three")[1]["text"] == "no hits"
    assert not any(c["style"] for c in shown.line("three")), "without hits nothing is coloured"
    assert shown.texts("mean") == ["37%|30%", "45%|65%", "100%|80%", ""], "of the prompts that have a part"
    assert shown.line("mean")[3]["title"] == "a: mean over the prompts with hits that drew from it (2)"
    assert shown.data_of("two") == [["target", "0%", "20%", "20", "0"], ["b", "100%", "80%", "80", "5"]]
    assert shown.data_of("three")[1] == ["c", "-", "80%", "80", "0"]


def test_of_many_prompts_the_largest_upper_ends_are_shown_and_all_are_counted(page_of):
    many = MOST_ROWS + 140
    records = [
        record(
            f"p{i:03d}",
            {"target": entry(0.0, 0.2, 0), "rude": entry(1.0 if i < MOST_ROWS else 0.0, 0.8)},
            working=[1e-6, 0.01 / (1 + i)],
        )
        for i in reversed(range(many))
    ]
    shown = HeatTable(page_of(records))
    lines = [line[0]["text"] for line in shown.cells[1:-1]]
    assert lines == [f"p{i:03d}" for i in range(MOST_ROWS)]
    assert f"the {MOST_ROWS} prompts with the largest upper ends; those left out (140) are in" in shown.text
    assert shown.texts("mean")[1] == "30%|80%", "60 of 200"
    assert len(shown.data) == 1 + 2 * many


def test_of_many_components_those_that_found_most_have_columns_and_the_last_joins_the_others(page_of):
    cells = [f"cell-{i}" for i in range(60)]
    weight = {name: 1 + (7 * i) % 60 for i, name in enumerate(cells)}
    records = []
    for p in range(30):
        own = [cells[2 * p], cells[2 * p + 1]]
        total = sum(weight[c] for c in own)
        components = {c: entry(0.999 * weight[c] / total, 0.4) for c in own}
        records.append(record(f"p{p}", {"target": entry(0.001, 0.2), **components}))
    shown = HeatTable(page_of(records, ["target", *cells]))
    parts = {c: r["components"][c]["part"] for r in records for c in r["components"] if c != "target"}
    best = set(sorted(cells, key=lambda c: (-parts[c], cells.index(c)))[: MOST_COLUMNS - 2])
    assert shown.head == ["target", *(c for c in cells if c in best), f"{60 - len(best)} others"]
    assert len(shown.head) == MOST_COLUMNS, "the target among them, little as it found"
    assert f"joins the {60 - len(best)} components that found least" in shown.text
    for r in records:
        coloured = [float(c["style"][4:]) for c in shown.line(r["prompt_id"])[2:] if c["style"]]
        assert sum(coloured) == pytest.approx(1.0, abs=3e-3)
    assert {line[1]["text"] for line in shown.data[1:]} == {"target", *cells}


def test_as_many_components_as_there_is_room_for_are_not_joined():
    names = [f"c{i}" for i in range(MOST_COLUMNS)]
    share = 1 / len(names)
    heat = heat_map(names, rows([record("p", {n: entry(share, share) for n in names})]))
    assert [c.label for c in heat.columns] == names and heat.joined == 0


def test_hostile_names_and_ids_stay_text(page_of):
    components = {"target": entry(0.4, 0.5), HOSTILE: entry(0.6, 0.5)}
    raw = page_of([record(f"id {HOSTILE}", components)], ["target", HOSTILE, "sure"])
    shown = HeatTable(raw)
    seen = HOSTILE.replace("\u202e", "\\u202e")
    assert shown.head == ["target", seen]
    assert shown.texts(f"id {seen}") == ["40%|50%", "60%|50%"]
    assert shown.line(f"id {seen}")[3]["title"].startswith(f"{seen}: 60% of the estimate")
    assert raw.count("<script") == 1 and "b" not in shown.tags and "\u202e" not in raw


def test_a_run_of_before_parts_shows_its_draws_and_says_why_nothing_else(page_of):
    old = [record("p", {"target": entry(None, 0.25), "rude": entry(None, 0.75)})]
    shown = HeatTable(page_of(old))
    assert shown.texts("p") == ["–|25%", "–|75%"] and "the run is older" in shown.text
    new = page_of([record("p", {"target": entry(0.0, 0.25, 0), "rude": entry(1.0, 0.75)})])
    assert "the run is older" not in new


def test_no_map_without_proposals_or_results(page_of):
    alone = [record("p", {"target": entry(1.0, 1.0)})]
    assert TITLE not in page_of(alone)
    failed = record("p", {"target": entry(0.5, 0.5), "rude": entry(0.5, 0.5)}, status="failed")
    assert TITLE not in page_of([failed])
    assert TITLE in page_of([{**failed, "status": "ok"}])


def test_the_only_proposal_of_a_run_without_draws_of_the_target_has_its_column(page_of):
    only = record("p", {"target": entry(0.0, 0.0, 0), "rude": entry(1.0, 1.0), "sure": entry(0.0, 0.0, 0)})
    shown = HeatTable(page_of([only]))
    assert shown.head == ["target", "rude"] and shown.texts("p") == ["–|0%", "100%|100%"]


@pytest.mark.parametrize("count", [8, 9])
def test_labels_stand_upright_where_there_are_many(page_of, count):
    names = ["target", *(f"c{i}" for i in range(count - 1))]
    raw = page_of([record("p", {n: entry(1 / count, 1 / count) for n in names})], names)
    assert HeatTable(raw).head == names
    assert ('class="heatmap tall"' in raw) == ("<span>c0</span></th>" in raw) == (count > 8)
