"""``tailrisk perturb`` as a user calls it; no prompt's text is ever printed."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from tailrisk.cli.app import app
from tailrisk.config import PromptsConfig
from tailrisk.perturbations import RULES
from tailrisk.prompts import read_prompts

RUN = CliRunner()
TEXTS = {"a": "How do I repair an XYZZY bicycle?", "b": "Write about XYZZY, please."}


@pytest.fixture
def prompts(tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps({"id": i, "prompt": t}) + "\n" for i, t in TEXTS.items()))
    return path


def call(*arguments, code: int = 0) -> str:
    done = RUN.invoke(app, ["perturb", *map(str, arguments)])
    assert done.exit_code == code, done.output
    assert "XYZZY" not in done.output and "xyzzy" not in done.output
    return done.output


def test_groups_are_written_and_counted(prompts, tmp_path):
    out = tmp_path / "deep" / "out.jsonl"
    said = call(prompts, "--out", out)
    found = read_prompts(out, PromptsConfig(path="x"))
    made = [p for p in found if p.perturbation is not None]
    assert [p.id for p in found if p.perturbation is None] == ["a", "b"]
    assert f"2 prompts and {len(made)} perturbations" in said and "--meaning" in said
    again = tmp_path / "again.jsonl"
    counts = json.loads(call(prompts, "--out", again, "--json"))
    assert again.read_bytes() == out.read_bytes()
    assert counts["perturbations"] == len(made) and sum(counts["kinds"].values()) == len(made)
    other = json.loads(call(prompts, "--out", again, "--seed", 1, "--json"))
    assert again.read_bytes() != out.read_bytes() and other["prompts"] == 2


def test_some_kinds_of_some_prompts(prompts, tmp_path):
    out = tmp_path / "out.jsonl"
    call(prompts, "--out", out, "--kinds", "upper-case, quoted", "--only", "b")
    assert [p.id for p in read_prompts(out, PromptsConfig(path="x"))] == ["b", "b.upper-case", "b.quoted"]
    assert call("--list").split() == list(RULES)


def test_a_configuration_names_the_prompts(prompts, tmp_path):
    config = tmp_path / "audit.yaml"
    config.write_text("target: {model: smollm2}\nprompts: {path: prompts.jsonl}\njudge: {kind: refusal}\n")
    out = tmp_path / "out.jsonl"
    call(config, "--out", out, "--kinds", "quoted")
    assert len(read_prompts(out, PromptsConfig(path="x"))) == 4


def test_texts_of_ones_own_are_added(prompts, tmp_path):
    own = tmp_path / "own.csv"
    own.write_text("base,text,name\na,Fix my XYZZY bike?,terse\na,How do I repair an XYZZY bicycle?,same\n")
    out = tmp_path / "out.jsonl"
    said = call(prompts, "--out", out, "--kinds", "none", "--from", own)
    assert [p.id for p in read_prompts(out, PromptsConfig(path="x"))] == ["a", "a.terse", "b"]
    assert "left out, unchanged: 1" in said and "1 prompts have no perturbation" in said


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--kinds", "uper-case"), "did you mean 'upper-case'?"),
        (("--only", "z"), "--only: no prompt with the id 'z'"),
        (("--kinds", "none"), "nothing was made"),
        (("--url", "http://h/v1"), "go with --paraphrase"),
        (("--paraphrase", "m", "--key-env", "K"), "--key-env goes with --url"),
        (("--paraphrase", "m", "--url", "h"), "--url:"),
        (("--paraphrase", "m", "--url", "http://h/v1", "--key-env", "sk-abc"), "--key-env:"),
        (("--paraphrase", "no such model!"), "no such folder"),
        (("--from", "gone.jsonl"), "no such file"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_written(prompts, tmp_path, more, said):
    out = tmp_path / "out.jsonl"
    told = call(prompts, "--out", out, *more, code=2)
    assert said in " ".join(told.split()) and "sk-abc" not in told
    assert not out.exists()


def test_the_file_is_jsonl(prompts, tmp_path):
    assert "ends in .jsonl" in " ".join(call(prompts, "--out", tmp_path / "out.csv", code=2).split())
