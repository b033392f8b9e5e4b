"""The judge's section of the page: what is said of the judge, with and without a check, and beside other judges."""

from __future__ import annotations

import json

import numpy as np
import pytest
from fakerun import CASES, Case, config, make_run
from test_report_page import HOSTILE, Page

from tailrisk.audit.judgecheck import check_content
from tailrisk.audit.local import LocalJudges
from tailrisk.audit.rejudging import rejudge, write_judged
from tailrisk.cli.folder import summary_of
from tailrisk.labelfiles import LabelFile, Labelled
from tailrisk.records import JudgedTexts, Prompt
from tailrisk.report import render_report
from tailrisk.report.judge import settings_in_words
from tailrisk.report.replay import read
from tailrisk.report.sensitivity import STEPS, Tally
from tailrisk.store import OtherJudge, RunStore, read_manifest, write_json_atomic
from tailrisk.store.checkfile import keep_check, parse_check

NAMES = ("target", "rude", "sure")
GOOD = CASES[:4]


def check(harm: int, missed: int, safe: int, wrong: int, folder, name: str = "labels.jsonl"):
    """Of a judge that misses and flags so many."""
    answers = tuple(Labelled(line=i, prompt="p", response=str(i), harm=i < harm) for i in range(harm + safe))
    verdicts = np.array([i >= missed if i < harm else i - harm < wrong for i in range(harm + safe)], np.int8)
    labels = LabelFile(
        path=folder / name, sha256="0" * 64, columns={}, rows=len(answers), answers=answers, duplicates=0,
        contradictory=(),
    )  # fmt: skip
    judged = JudgedTexts(verdicts, verdicts.astype(np.float64) * 0.8 + 0.1, [""] * len(answers))
    content = check_content(labels, judged, {"settings": {}, "digest": "d"}, confidence=0.95, threshold=None)
    return parse_check(json.loads(json.dumps(content)))


class Contains:
    """Harm is this word."""

    def __init__(self, word: str) -> None:
        self._word = word

    def judge(self, prompt, responses):
        harm = np.array([self._word in r for r in responses], dtype=np.int8)
        return JudgedTexts(harm, harm.astype(np.float64), [""] * len(responses))


def judged_by(folder, name: str, judge, settings=None) -> None:
    manifest = read_manifest(folder)
    prompts = [
        Prompt(id=p["id"], messages=({"role": "user", "content": "x"},), category=p["category"])
        for p in manifest.prompts
    ]
    other = OtherJudge(name=name, digest="d" * 64, settings=settings or {"kind": "regex", "pattern": "x"})
    with RunStore.open(folder, manifest) as store:
        rejudge(store, other, LocalJudges(judge, prompts))
    write_judged(config(folder), prompts, folder, other)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "demo", GOOD)


def text_of(folder, **options) -> str:
    return Page(render_report(folder, **options).read_text(encoding="utf-8")).text


def test_without_a_check_the_error_is_said_to_be_unknown(run):
    text = text_of(run)
    assert "its error is unknown" in text and "Can the judge be trusted?" in text
    assert "2.0×" in text and "11×" in text and "101×" in text, "1e-5, 1e-4 and 1e-3 on a truth of 1e-5"
    assert "Judged and corrected" not in text
    assert "the judge has no threshold of its own" in text


def test_with_a_check_the_numbers_are_corrected(tmp_path):
    folder = make_run(tmp_path / "run", GOOD, finished=False)
    keep_check(folder, check(400, 80, 4000, 0, tmp_path, f"l{HOSTILE}.csv".replace("/", "")))
    summary = summary_of(folder)
    page = Page(render_report(folder, summary=summary).read_text(encoding="utf-8"))
    text = page.text
    assert len(page.scripts) == 1 and not [tag for tag, _ in page.elements if tag == "img"]
    assert "measured on 4,400 labelled answers; the numbers are corrected" in text
    assert (
        "0.8000" in text
        and "Cohen's kappa" in text
        and "smallest probability that this judge resolves" in text
    )
    assert "carry over to the audit only if" in text
    assert (
        len([a for tag, a in page.elements if tag == "svg" and "labelled" in (a.get("aria-label") or "")])
        == 1
    )
    by_id = {e["prompt_id"]: e for e in summary["estimates"]}
    assert by_id["frequent"]["corrected"]["estimate"] == pytest.approx(by_id["frequent"]["estimate"] / 0.8)
    assert by_id["rarer"]["status"] == "bound-only" and "not resolved" in text
    assert "most false positives" in text and "most misses" in text


def test_thresholds_are_changed_in_the_log_alone():
    """Against a sum by hand over two rounds: other thresholds, the undetermined as harm."""
    from tailrisk.records import Batch, PromptPlan
    from tailrisk.report.weighed import Weighed
    from tailrisk.store import LoggedNumbers

    rng = np.random.default_rng(0)
    tally = Tally(0.5)
    expected: dict[str, float] = {}
    for round_, (n, mass) in enumerate([(40, 0.25), (60, 0.75)]):
        scores = rng.random(n)
        scores[:2] = 0.0, 1.0
        verdicts = (scores >= 0.5).astype(np.int8)
        scores[5], verdicts[5] = np.nan, 2
        log_w = rng.normal(size=n)
        batch = Batch(prompt_id="p", component=0, index=round_, round=round_, size=n, seed=1)
        numbers = LoggedNumbers(
            batch=batch, log_q=np.zeros((n, 1)), log_q_sample=np.zeros(n), verdicts=verdicts, scores=scores,
            judge_errors=[""] * n, seconds=0.0, token_rows=b"[]",
        )  # fmt: skip
        tally.add(
            Weighed(numbers, PromptPlan(prompt_id="p", counts=(n,), mass=mass, final=round_ == 1), log_w)
        )
        w = mass * np.exp(log_w) / n
        for label, harm in {
            "as judged": verdicts == 1,
            "undetermined as harm": verdicts > 0,
            **{f"harm from {0.5 + step:.3g} on": scores >= 0.5 + step for step in STEPS},
        }.items():
            expected[label] = expected.get(label, 0.0) + float(w[harm].sum())
    found = tally.done()
    assert found is not None and not found.note
    assert {c.label: c.values["p"] for c in found.changes} == pytest.approx(expected, rel=1e-12)
    values = [expected[f"harm from {0.5 + step:.3g} on"] for step in STEPS]
    assert values == sorted(values, reverse=True)


def test_the_first_column_is_the_estimate(run):
    tally = Tally(None)
    read(run, NAMES, corrected=False, seen=tally.add)
    found = tally.done()
    assert found is not None
    for e in json.loads((run / "estimates.json").read_text())["estimates"]:
        assert found.changes[0].values[e["prompt_id"]] == pytest.approx(e["estimate"], rel=1e-9)


def test_scores_that_do_not_make_the_verdicts_are_not_cut_again(run):
    tally = Tally(2.0)  # the scores are 0 and 1
    read(run, NAMES, corrected=False, seen=tally.add)
    found = tally.done()
    assert found is not None and len(found.changes) == 1 and "do not say by themselves" in found.note


def test_judges_stand_side_by_side(tmp_path):
    folder = make_run(tmp_path / "run", CASES)
    judged_by(
        folder,
        "stricter",
        Contains("harm done 3"),
        {"kind": "regex", "pattern": HOSTILE.replace("\ud800", "")},
    )
    page = Page(render_report(folder, summary=summary_of(folder)).read_text(encoding="utf-8"))
    assert len(page.scripts) == 1 and not [tag for tag, _ in page.elements if tag == "img"]
    assert "What do other judges say" in page.text and "agreement with stricter" in page.text
    assert "unbiased" in page.text and "stricter beside the run's own judge" in page.text
    assert (
        len([a for t, a in page.elements if t == "svg" and "two judges" in (a.get("aria-label") or "")]) == 1
    )
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    strict = json.loads((folder / "judges/stricter/estimates.json").read_text())
    for e in strict["estimates"]:
        assert e["prompt_id"] in page.text
    strict["audit"]["draws"] -= 10
    write_json_atomic(folder / "judges/stricter/estimates.json", strict)
    assert "the run has more by now" in text_of(folder, summary=summary_of(folder))
    (folder / "judges/stricter/estimates.json").unlink()
    assert "Judge stricter has not read all draws yet" in text_of(folder, summary=summary_of(folder))


def test_a_judges_prompt_is_redacted():
    told = settings_in_words({"kind": "rubric", "prompt": "secret " * 50, "check": "c.json"}, redact=True)
    assert told[0] == ("kind", "rubric") and told[1][1].startswith("sha256 ") and len(told) == 2
    assert "secret" in settings_in_words({"prompt": "secret " * 50}, redact=False)[0][1]


def test_a_damaged_copy_of_a_check_is_refused(tmp_path):
    good = dict(check(10, 1, 10, 1, tmp_path).content)
    for change in ({"rates": {}}, {"scores": {"edges": [0], "harm": [1], "safe": [1]}}, {"labels": {"file": 3}},
                   {"thresholds": [{"threshold": "<b>"}]}, {"confidence": "x"}):  # fmt: skip
        with pytest.raises(ValueError, match="damaged"):
            parse_check({**good, **change})


def test_an_unfinished_run_has_the_section_too(tmp_path):
    folder = make_run(tmp_path / "run", [Case("p", 0.01)], finished=False)
    assert "Can the judge be trusted?" in text_of(folder, summary=summary_of(folder))
