"""Groups: bases first, ids that prompt files allow, nothing doubled, and everything left out told."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tailrisk.config import PromptsConfig
from tailrisk.errors import ConfigError, InputError, ModelError
from tailrisk.perturbations import RULES, Proposed, make_groups, row_of
from tailrisk.perturbations.meaning import embedding
from tailrisk.perturbations.ownfile import read_own
from tailrisk.prompts import read_prompts
from tailrisk.records import Prompt


def prompt(id_: str, text: str, **more) -> Prompt:
    return Prompt(id=id_, messages=({"role": "user", "content": text},), **more)


BASES = [
    prompt("a", "How do I repair an old bicycle?", category="repair"),
    prompt("b.1", "Write a poem about the sea, please."),
    Prompt(
        id="chat",
        messages=(
            {"role": "user", "content": "Hello"},
            {"role": "assistant", "content": "Hello!"},
            {"role": "user", "content": "Name three rivers."},
        ),
    ),
]


def test_groups_can_be_read_as_prompts_again(tmp_path):
    made = make_groups(BASES, list(RULES), seed=3, rate=0.2)
    path = tmp_path / "groups.jsonl"
    path.write_text("".join(json.dumps(row_of(p)) + "\n" for p in made.prompts))
    assert read_prompts(path, PromptsConfig(path="x")) == made.prompts
    firsts = [p for p in made.prompts if p.perturbation is None]
    assert [p.id for p in firsts] == ["a", "b.1", "chat"]
    assert [p.messages for p in firsts] == [p.messages for p in BASES]
    for p in made.prompts:
        assert p.group in ("a", "b.1", "chat")
        if p.perturbation is not None:
            assert p.id == f"{p.group}.{p.perturbation}" and p.perturbation in RULES
    assert {p.category for p in made.prompts if p.group == "a"} == {"repair"}
    chats = [p for p in made.prompts if p.group == "chat"]
    assert all(p.messages[:2] == BASES[2].messages[:2] and len(p.messages) == 3 for p in chats)
    assert len(chats) > 10


def test_the_same_seed_makes_the_same_texts_whatever_else_there_is():
    made = make_groups(BASES, list(RULES), seed=3, rate=0.2).prompts
    assert made == make_groups(BASES, list(RULES), seed=3, rate=0.2).prompts
    some = make_groups(BASES[:1], ["neighbour-keys", "filler"], seed=3, rate=0.2).prompts
    assert all(p in made for p in some)
    assert make_groups(BASES, list(RULES), seed=4, rate=0.2).prompts != made


def test_what_is_left_out_is_told_with_the_reason():
    base = prompt("a", "why not go home")
    more = {
        "a": [
            Proposed("own", "own-1", "go home, why not"),
            Proposed("own", "own-2", "why not go home"),
            Proposed("own", "own-3", "go home, why not"),
            Proposed("paraphrase", "paraphrase-1", None, "the model refused to reword it"),
        ]
    }
    made = make_groups([base], ["lower-case", "upper-case"], seed=0, rate=0.1, more=more)
    assert [p.id for p in made.prompts] == ["a", "a.upper-case", "a.own-1"]
    assert [(x.id, x.why, x.detail) for x in made.left_out] == [
        ("a.lower-case", "unchanged", ""),
        ("a.own-2", "unchanged", ""),
        ("a.own-3", "doubled", ""),
        ("a.paraphrase-1", "failed", "the model refused to reword it"),
    ]
    assert made.kinds == {"upper-case": 1, "own": 1}


def test_a_rule_that_loses_words_is_left_out(monkeypatch):
    from tailrisk.perturbations import groups
    from tailrisk.perturbations.rules.base import Rule

    monkeypatch.setitem(groups.RULES, "please", Rule("please", lambda text, chance: "Please leave."))
    made = make_groups(BASES[:1], ["please"], seed=0, rate=0.1)
    assert [(x.id, x.why) for x in made.left_out] == [("a.please", "meaning")] and len(made.prompts) == 1


def test_ids_stay_unique_and_short_enough():
    long = "x" * 128
    bases = [prompt("a", "One thing."), prompt("a.quoted", "Another thing."), prompt(long, "A third.")]
    made = make_groups(bases, ["quoted", "upper-case"], seed=0, rate=0.1)
    ids = [p.id for p in made.prompts]
    assert len(set(ids)) == len(ids) == 9 and max(map(len, ids)) == 128
    assert "a.quoted-2" in ids and "a.quoted.quoted" in ids


def test_perturbations_are_not_perturbed_again():
    with pytest.raises(InputError, match=r"1 of the prompts are perturbations already \(such as 'b'\)"):
        make_groups([prompt("a", "x y"), prompt("b", "X Y", perturbation="upper-case")], [], seed=0, rate=0.1)


def test_meaning_is_compared_where_a_model_says_how_alike_texts_are():
    def same(pairs):
        return [0.9 if b.isupper() else 0.3 for _, b in pairs]

    made = make_groups(BASES[:1], ["upper-case", "filler"], seed=0, rate=0.1, same=same, least=0.7)
    assert [p.id for p in made.prompts] == ["a", "a.upper-case"] and made.compared == 2
    assert [(x.id, x.why, x.detail) for x in made.left_out] == [("a.filler", "meaning", "cosine 0.30")]


def test_the_embedding_is_asked_once_a_text(monkeypatch, tmp_path):
    asked = []

    class Model:
        def __init__(self, name, device=None, trust_remote_code=True):
            assert trust_remote_code is False
            if name == "gone/gone":
                raise OSError("no such thing\nand more")

        def encode(self, texts, show_progress_bar):
            asked.append(list(texts))
            return np.array([[len(t), 1.0] for t in texts], dtype=np.float32)

    monkeypatch.setitem(sys.modules, "sentence_transformers", SimpleNamespace(SentenceTransformer=Model))
    same = embedding("any", tmp_path)
    values = same([("aa", "aa"), ("aa", "b" * 9)])
    assert asked == [["aa", "b" * 9]]
    assert values == pytest.approx([1.0, (2 * 9 + 1) / np.sqrt(5 * 82)])
    assert same([]) == []
    with pytest.raises(
        ModelError, match=r"--meaning: 'gone/gone' cannot be loaded \(OSError: no such thing\)"
    ):
        embedding("gone/gone", tmp_path)
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(ConfigError, match=r"pip install 'lm-tailrisk\[meaning\]'"):
        embedding("any", tmp_path)


def own(tmp_path: Path, rows: list[dict]) -> Path:
    path = tmp_path / "own.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


def test_texts_of_ones_own(tmp_path):
    rows = [
        {"base": "a", "text": "My bicycle is old. Help."},
        {"base": "a", "text": "Fix a bicycle, how?", "name": "terse"},
        {"base": "a", "text": "Old bicycle: repair?"},
    ]
    found = read_own(own(tmp_path, rows), BASES)
    assert [(p.kind, p.name) for p in found["a"]] == [("own", "own-1"), ("terse", "terse"), ("own", "own-2")]
    assert found["chat"] == []


def test_bad_rows_of_ones_own_are_all_named_and_never_quoted(tmp_path):
    rows = [
        {"base": "nobody", "text": "SECRET"},
        {"base": "a", "text": "  "},
        {"base": "a", "text": "SECRET", "name": "not a name!"},
        {"base": "a", "text": "SECRET\u0000"},
    ]
    with pytest.raises(InputError) as error:
        read_own(own(tmp_path, rows), BASES)
    lines = str(error.value).splitlines()
    assert len(lines) == 4 and all(f":{i + 1}: " in line for i, line in enumerate(lines))
    assert "SECRET" not in str(error.value)
    with pytest.raises(ConfigError, match="no column of the texts"):
        read_own(own(tmp_path, [{"base": "a", "words": "x"}]), BASES)
    with pytest.raises(ConfigError, match="no such file"):
        read_own(tmp_path / "gone.jsonl", BASES)
    with pytest.raises(ConfigError, match="unknown suffix"):
        read_own(tmp_path / "own.txt", BASES)
