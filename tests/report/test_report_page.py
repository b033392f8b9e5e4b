"""The page as a whole, from run folders written through the real store."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import pytest
from fakerun import CASES, Case, make_run

from tailrisk.errors import StoreError
from tailrisk.report import render_report
from tailrisk.report.heaviest import HITS_PER_PROMPT
from tailrisk.report.replay import read

MARKUP = '</pre></style></script><script>alert(1)</script><img src=x onerror="alert(2)">'
HOSTILE = f"{MARKUP} \x00 \u202e {{{{7*7}}}} \ud800"


class Page(HTMLParser):
    """Elements, attributes and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text = ""
        self._in_script = False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._in_script = tag == "script"

    def handle_endtag(self, tag):
        self._in_script = False

    def handle_data(self, data):
        if self._in_script:
            self.scripts.append(data)
        else:
            self.text += data


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "demo")


@pytest.fixture(scope="module")
def page(run):
    return Page(render_report(run).read_text(encoding="utf-8"))


def test_every_prompt_is_in_the_table_with_its_status(page, run):
    for estimate in json.loads((run / "estimates.json").read_text())["estimates"]:
        assert estimate["prompt_id"] in page.text
        assert ("span", {"class": f"status {estimate['status']}"}) in [
            (tag, {"class": attrs.get("class")}) for tag, attrs in page.elements
        ]


def test_headline_event_and_limits_are_stated(page):
    assert "For 3 of 5 prompts the estimate is settled" in page.text
    assert "the answer matches the pattern harm" in page.text
    assert "What is not claimed" in page.text
    assert "1 prompt failed" in page.text


def test_all_figures_are_inline(page):
    labels = [attrs.get("aria-label", "") for tag, attrs in page.elements if tag == "svg"]
    assert all(labels) and len(labels) == len(set(labels))
    figures = [attrs["id"] for tag, attrs in page.elements if (attrs.get("id") or "").startswith("figure-")]
    assert figures == [
        f"figure-{name}"
        for name in (
            "forest",
            "above",
            "forecast",
            "plain",
            "diagnostics",
            "running",
            "weights",
            "top-shares",
            "gain",
            "allocation",
        )
    ]
    assert len(labels) == len(figures)


def test_nothing_is_fetched_from_anywhere(page):
    for tag, attrs in page.elements:
        assert tag not in {"img", "iframe", "link", "object", "embed", "base", "form"}
        assert not {"src", "srcset", "action", "background"} & set(attrs), tag
        for name in ("href", "xlink:href"):
            assert (attrs.get(name) or "#").startswith("#"), (tag, attrs)
        assert "url(http" not in (attrs.get("style") or "")
        assert not [name for name in attrs if name.startswith("on")]


def test_ids_are_unique_and_references_resolve(page, run):
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    text = (run / "report.html").read_text(encoding="utf-8")
    references = set(re.findall(r'(?:xlink:href="#|url\(#)([^")]+)', text))
    assert references and references <= set(ids)


def test_the_policy_allows_the_one_script_only(page):
    (script,) = page.scripts
    (policy,) = [attrs["content"] for tag, attrs in page.elements if attrs.get("http-equiv")]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy


def test_colours_follow_the_page(run):
    text = (run / "report.html").read_text(encoding="utf-8")
    assert "prefers-color-scheme: dark" in text
    assert "#00000" not in text and "#00001" not in text
    variables = set(re.findall(r"var\((--[a-z-]+)\)", text))
    assert variables <= set(re.findall(r"(--[a-z-]+):", text))


def test_the_same_folder_gives_the_same_page(run):
    first = render_report(run).read_bytes()
    assert render_report(run).read_bytes() == first


def test_hostile_text_stays_text(tmp_path):
    cases = [Case("p1", 0.01, f"cat {HOSTILE}".replace("\ud800", ""))]
    run = make_run(tmp_path / "hostile", cases, harmful_text=HOSTILE)
    path = render_report(run)
    raw = path.read_text(encoding="utf-8")
    page = Page(raw)
    assert len(page.scripts) == 1 and "alert" not in page.scripts[0]
    assert not [tag for tag, _ in page.elements if tag == "img"]
    assert "\x00" not in raw and "\u202e" not in raw
    assert "<script>alert(1)</script>" in page.text, "shown as text"
    assert "{{7*7}}" in page.text and "\\u202e" in page.text and "\\ud800" in page.text


def test_redaction_leaves_no_answer(tmp_path):
    run = make_run(tmp_path / "run", CASES[:2], harmful_text="SECRET-ANSWER")
    assert "SECRET-ANSWER" in render_report(run).read_text(encoding="utf-8")
    redacted = render_report(run, redact=True).read_text(encoding="utf-8")
    assert "SECRET-ANSWER" not in redacted
    assert re.search(r"sha256 [0-9a-f]{64}, \d+ characters", redacted)


def test_an_unfinished_run_has_no_page_without_its_numbers(tmp_path):
    run = make_run(tmp_path / "run", CASES[:2], finished=False)
    with pytest.raises(StoreError, match=r"no estimates\.json yet"):
        render_report(run)


def test_damaged_estimates_are_named(tmp_path):
    run = make_run(tmp_path / "run", CASES[:1])
    (run / "estimates.json").write_text("{")
    with pytest.raises(StoreError, match=r"estimates\.json: cannot be read"):
        render_report(run)


def test_a_run_in_which_everything_failed_has_a_page(tmp_path):
    run = make_run(tmp_path / "run", [Case("broken", 0.1, fails=True)])
    page = Page(render_report(run).read_text(encoding="utf-8"))
    assert "1 prompt failed" in page.text
    assert "No harmful answer was drawn." in page.text


def test_the_heaviest_hits_carry_shares_of_the_estimate(run):
    """Contributions of all answers add up to the estimate, so the kept ones to at most all of it."""
    replayed = read(run, ("target", "rude", "sure"), corrected=False)
    estimates = {e["prompt_id"]: e for e in json.loads((run / "estimates.json").read_text())["estimates"]}
    assert set(replayed.hits) == {"frequent", "rare", "rarer"}
    for prompt, hits in replayed.hits.items():
        assert 1 <= len(hits) <= HITS_PER_PROMPT
        assert len({h.text for h in hits}) == len(hits), "an answer is shown once"
        shares = [h.share for h in hits]
        assert shares == sorted(shares, reverse=True)
        assert sum(shares) <= 1
        for hit in hits:
            assert hit.contribution == pytest.approx(hit.share * estimates[prompt]["estimate"], rel=1e-9)


def test_replay_counts_every_draw(run):
    replayed = read(run, ("target", "rude", "sure"), corrected=False)
    assert replayed.rounds == [0, 1, 2]
    assert replayed.draws["rare"] == [60, 300, 600]
    assert len(replayed.log_w) == 4 * 960
    assert replayed.failures == {"broken": "non-finite logits at token 2"}
    assert replayed.bound == pytest.approx(3.0)
    assert replayed.agreement == (0.0, 0.0)
    assert replayed.log_w.max() <= 1.0987


def test_of_very_many_prompts_those_with_the_largest_upper_ends_are_shown(run, page, monkeypatch):
    from tailrisk.report import material, tables

    before = (run / "report.html").read_bytes()
    monkeypatch.setattr(material, "MOST_PROMPTS", 2)
    try:
        text = Page(render_report(run).read_text(encoding="utf-8")).text
    finally:
        (run / "report.html").write_bytes(before)
    listed = tables.rows(json.loads((run / "estimates.json").read_text())["estimates"])
    assert f"first 2 of {len(listed)} prompts" in text and "first 2 of" not in page.text
    shown = text.split("Configuration")[0]
    assert all(r.prompt_id in shown for r in listed[:2])
    assert not any(
        f"{r.prompt_id} " in shown.split("6 Evidence")[1].split("7 Validity")[0] for r in listed[2:]
    )
    kept = read(run, ("target", "rude", "sure"), corrected=False, shown={"rare"}).hits
    assert kept == {"rare": read(run, ("target", "rude", "sure"), corrected=False).hits["rare"]}
