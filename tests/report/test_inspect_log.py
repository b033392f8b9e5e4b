"""The log of Inspect AI, read back by Inspect AI itself; skipped where it is not installed."""

from __future__ import annotations

import dataclasses
import json
import math
import zipfile

import fakerun
import numpy as np
import pytest
from fakerun import CASES, Case, make_run

from tailrisk.cli import run
from tailrisk.records import Verdict

pytest.importorskip("inspect_ai", reason="pip install 'lm-tailrisk[inspect]'")

SYSTEM = "You are an assistant of a bank."
SETTINGS = {
    "target": {
        "model": "toy",
        "dtype": "float32",
        "system_prompt": SYSTEM,
        "sampling": {"max_new_tokens": 4, "temperature": 0.7, "top_k": 5},
    }
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two prompts, one draw in twelve without a verdict, answers that are hard to write down."""
    root = tmp_path_factory.mktemp("inspect")
    cases = CASES[1:3]
    drawn = fakerun._draw

    def draw(batch, table, text):
        result = drawn(batch, table, text)
        unsure = np.arange(result.n) % 12 == 11
        verdicts = np.where(unsure, np.int8(Verdict.UNDETERMINED), result.verdicts)
        errors = ["the judge said nothing" if u else "" for u in unsure]
        scores = np.where(unsure, np.nan, result.scores)
        return dataclasses.replace(result, verdicts=verdicts, judge_errors=errors, scores=scores)

    fakerun._draw = draw
    try:
        make_run(
            root / "runs" / "first",
            cases,
            rounds=(60, 120),
            harmful_text="harm done \ud83d <b>\x00",
            **SETTINGS,
        )
    finally:
        fakerun._draw = drawn
    lines = [json.dumps({"id": c.id, "category": c.category, "prompt": f"prompt of {c.id}"}) for c in cases]
    (root / "prompts.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return root / "runs" / "first"


def export(folder, path, *more):
    from inspect_ai.log import read_eval_log

    prompts = folder.parents[1] / "prompts.jsonl"
    words = ["export", str(folder), "--to", "inspect", "--out", str(path), "--prompts", str(prompts)]
    assert run([*words, *more]) == 0
    return read_eval_log(str(path))


def test_every_draw_is_a_sample_and_their_weights_give_the_estimates(folder, tmp_path, capfd):
    log = export(folder, tmp_path / "x.eval")
    said = json.loads((folder / "estimates.json").read_text())["estimates"]
    draws = sum(e["draws"] for e in said)
    assert log.status == "success" and len(log.samples) == draws == log.results.total_samples
    assert f"{draws:,} samples" in capfd.readouterr().out
    assert len({s.id for s in log.samples}) == draws
    for e in said:
        own = [s for s in log.samples if s.metadata["prompt_id"] == e["prompt_id"]]
        scores = [s.scores["tailrisk"] for s in own]
        assert len(own) == e["draws"]
        harm = [x for x in scores if x.value == 1]
        assert len(harm) == e["hits"] and all(x.metadata["verdict"] == "harm" for x in harm)
        total = math.fsum(x.metadata["weight"] * x.metadata["scale"] for x in harm)
        assert total == pytest.approx(e["estimate"], rel=1e-12)
        unsure = [x for x in scores if math.isnan(x.value)]
        assert len(unsure) == e["undetermined"] > 0
        assert {x.reason for x in unsure} == {"grader_failed"}
        assert {x.explanation for x in unsure} == {"the judge said nothing"}
    score = log.results.scores[0]
    assert score.scored_samples + score.unscored_samples == draws
    assert score.unscored_samples == sum(e["undetermined"] for e in said)
    assert [e["prompt_id"] for e in log.results.metadata["estimates"]] == [e["prompt_id"] for e in said]
    assert log.eval.model == "toy" and log.eval.model_generate_config.temperature == 0.7
    assert log.eval.model_generate_config.top_k == 5 and log.eval.dataset.samples == draws


def test_a_sample_is_the_chat_with_the_system_prompt(folder, tmp_path):
    from inspect_ai.log import read_eval_log_sample_summaries

    log = export(folder, tmp_path / "x.eval")
    sample = next(s for s in log.samples if s.scores["tailrisk"].value == 1)
    assert [m.role for m in sample.input] == ["system", "user"]
    assert [m.text for m in sample.input] == [SYSTEM, f"prompt of {sample.metadata['prompt_id']}"]
    assert (
        sample.output.completion.startswith("harm done ")
        and sample.messages[-1].text == sample.output.completion
    )
    more = sample.scores["tailrisk"].metadata
    assert sample.id == f"{more['batch_key'].replace('/', '-')}-{more['draw']}"
    assert set(more["log_q"]) == {"target", "rude", "sure"} and more["log_p"] == more["log_q"]["target"]
    assert more["component"] in more["log_q"]
    summaries = read_eval_log_sample_summaries(str(tmp_path / "x.eval"))
    assert {s.id for s in summaries} == {s.id for s in log.samples}


def test_only_the_heaviest_hits(folder, tmp_path):
    every = export(folder, tmp_path / "x.eval")
    some = export(folder, tmp_path / "y.eval", "--hits", "7")

    def parts(log):
        found = [s.scores["tailrisk"] for s in log.samples if s.scores["tailrisk"].value == 1]
        return sorted((x.metadata["weight"] * x.metadata["scale"] for x in found), reverse=True)

    assert len(some.samples) == 7 and parts(some) == parts(every)[:7]
    assert some.results.metadata["heaviest_only"] and not every.results.metadata["heaviest_only"]


def test_a_redacted_log_holds_no_words(folder, tmp_path):
    assert run(["export", str(folder), "--to", "inspect", "--out", str(tmp_path / "r.eval"), "--redact"]) == 0
    with zipfile.ZipFile(tmp_path / "r.eval") as archive:
        for name in archive.namelist():
            text = archive.read(name).decode()
            for word in ("harm done", "good answer", "prompt of", SYSTEM, "said nothing"):
                assert word not in text, (name, word)


def test_without_the_prompts_it_says_where_they_were_looked_for(folder, tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(["export", str(folder), "--to", "inspect", "--out", str(tmp_path / "x.eval")]) == 2
    assert "--prompts FILE" in capfd.readouterr().err


@pytest.mark.nightly
def test_a_hundred_thousand_draws_fit_in_memory(tmp_path):
    """Peak memory grows by far less than what the samples would take: 100,000 are some hundred megabytes each way."""
    import tracemalloc

    big = make_run(tmp_path / "big", [Case("frequent", 0.05)], rounds=(100_000,))
    small = make_run(tmp_path / "small", [Case("frequent", 0.05)], rounds=(10_000,))
    peaks = []
    for folder in (small, big):
        tracemalloc.start()
        assert (
            run(["export", str(folder), "--to", "inspect", "--out", str(tmp_path / "x.eval"), "--redact"])
            == 0
        )
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 400e6
