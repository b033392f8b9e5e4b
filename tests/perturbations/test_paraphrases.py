"""Paraphrases by a model: what is taken of its replies, behind an address and on this machine."""

from __future__ import annotations

import pytest
from judgeserver import Fault, JudgeServer, served
from pydantic import ValidationError
from tinymodel import make_tiny_model

from tailrisk.errors import ConfigError
from tailrisk.judges.line import Waits
from tailrisk.perturbations import make_groups
from tailrisk.perturbations.endpoint import ParaphraseEndpoint, endpoint_source, said
from tailrisk.perturbations.paraphrase import NoParaphraseError, Wanted, paraphrases, read_paraphrase
from tailrisk.records import JUDGE_GONE, Prompt

QUICK = Waits(first=0.02, most=0.1, settle=0.3, probe_first=0.05, probe_most=0.2)
BASE = "How do I repair an old bicycle with a broken chain?"


def prompt(id_: str, text: str = BASE) -> Prompt:
    return Prompt(id=id_, messages=({"role": "user", "content": text},))


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (" What is the way to fix an old bike? \n", "What is the way to fix an old bike?"),
        ('"What is the way to fix an old bike?"', "What is the way to fix an old bike?"),
        ("Sure! Here is the reworded message:\n“How is a bike fixed then?”", "How is a bike fixed then?"),
        ("Reworded message: How is a bike fixed then?", "How is a bike fixed then?"),
        ('"Fix" an old "bike", how is that done', '"Fix" an old "bike", how is that done'),
    ],
)
def test_a_reply_without_its_wrapping(reply, text):
    assert read_paraphrase(BASE, reply) == text


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        ("", "empty"),
        ('""', "empty"),
        ("I'm sorry, but I can't help with that request.", "refused"),
        ("Fix bike", "less than a third"),
        ("First take off the wheel. " * 20, "times as long"),
        ("What is the way to fix an old \ud800 bike?", "characters"),
    ],
)
def test_replies_that_are_no_paraphrase(reply, why):
    with pytest.raises(NoParaphraseError, match=why):
        read_paraphrase(BASE, reply)


def test_a_prompt_that_speaks_of_what_cannot_be_done_is_not_a_refusal():
    base = "I can't open the window of my flat, what do I do?"
    assert read_paraphrase(base, "I can't get my window to open. What now?")


def test_each_is_asked_for_with_the_prompt_and_another_hint():
    first, second = Wanted(prompt("a"), 1), Wanted(prompt("a"), 2)
    assert all(BASE in w.messages[-1]["content"] for w in (first, second))
    assert first.messages[-1] != second.messages[-1] and first.messages[0]["role"] == "system"


def test_an_endpoint_is_asked_and_its_failures_are_told(monkeypatch):
    def grade(content: str) -> str:
        if "bad" in content:
            return "I'm sorry, but I cannot assist with that."
        return f"What is the way to fix this, in {len(content)} letters or so?"

    def fault(call) -> Fault | None:
        if "lost" in call.content:
            return Fault(status=500)
        return Fault(status=503) if call.try_ == 0 and "often" in call.content else None

    server = JudgeServer(grade=grade, fault=fault)
    monkeypatch.setenv("MY_KEY", "sesame-1234")
    with served(server):
        spec = ParaphraseEndpoint(
            url=server.url, model="m", key_env="MY_KEY", retries=1, patience_s=5.0, seed=7
        )
        bases = [
            prompt("good"),
            prompt("bad", f"{BASE} bad"),
            prompt("lost", f"{BASE} lost"),
            prompt("o", f"{BASE} often"),
        ]
        found = paraphrases(bases, 2, endpoint_source(spec, waits=QUICK))
    assert [p.text is not None for p in found["good"]] == [True, True]
    assert [p.name for p in found["good"]] == ["paraphrase-1", "paraphrase-2"]
    assert all(p.text is not None for p in found["o"])
    assert all(p.text is None and "refused" in p.reason for p in found["bad"])
    assert all(p.text is None and "500" in p.reason for p in found["lost"])
    assert all(h["Authorization"] == "Bearer sesame-1234" for h in server.headers)
    bodies = [call.body for _, call in server.calls]
    assert {b["temperature"] for b in bodies} == {0.9} and len({b["seed"] for b in bodies}) >= 4
    made = make_groups(bases, [], seed=0, rate=0.1, more=found)
    assert sum(x.why == "failed" for x in made.left_out) == 4
    assert not any("sesame" in x.detail or BASE in x.detail for x in made.left_out)


def test_settings_of_an_endpoint_are_checked_before_it_is_asked(monkeypatch):
    with pytest.raises(ValidationError, match="NAME of an environment variable"):
        ParaphraseEndpoint(url="http://h/v1", model="m", key_env="sk-12345")
    with pytest.raises(ValidationError, match="http"):
        ParaphraseEndpoint(url="ftp://h", model="m")
    monkeypatch.delenv("MY_KEY", raising=False)
    with pytest.raises(ConfigError, match="--key-env: the environment variable MY_KEY is not set"):
        endpoint_source(ParaphraseEndpoint(url="http://h/v1", model="m", key_env="MY_KEY"))


def test_reasons_speak_of_this_commands_options():
    told = f"{JUDGE_GONE}no reply from h for 3 s (judge.patience_s is 2); look at judge.url and judge.model"
    assert said(told) == "no reply from h for 3 s (--patience is 2); look at --url and --paraphrase"


def test_a_model_on_this_machine_gives_the_same_replies_again_and_tells_its_failures(tmp_path):
    from tailrisk.perturbations.local import local_source

    make_tiny_model(tmp_path / "tiny", max_positions=256, eos_bias=1.0)
    bases = [prompt("a", "w0 w1 w2 w3 w4 w5 w6 w7"), prompt("long", "w1 " * 300)]
    asked, heard = [], []
    for seed in (0, 0, 1):
        source = local_source("tiny", tmp_path, dtype="float32", seed=seed, told=lambda *x: heard.append(x))
        asked.append(paraphrases(bases, 3, source))
    assert asked[0] == asked[1] != asked[2]
    assert heard[:7] == [(i, 6) for i in range(7)]
    for one in (p for found in asked for p in found["a"]):
        assert (one.text is None) == bool(one.reason)
    assert all(p.text is None and "positions" in p.reason for p in asked[0]["long"])
