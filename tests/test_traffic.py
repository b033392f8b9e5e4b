"""Traffic mixes: shares of prompts, and what is refused."""

from __future__ import annotations

import pytest

from tailrisk.errors import ConfigError
from tailrisk.traffic import Audited, Traffic, read_traffic

PROMPTS = [
    Audited("a1", "a", "law"),
    Audited("a2", "a", "law"),
    Audited("b", None, "law"),
    Audited("c", None, "health"),
    Audited("d", None, None),
]


def written(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def test_a_group_counts_once():
    assert Traffic().shares(PROMPTS) == pytest.approx([0.125, 0.125, 0.25, 0.25, 0.25])


@pytest.mark.parametrize(
    ("name", "text", "shares"),
    [
        ("t.yaml", "categories: {law: 3, health: 1e0}", [0.1875, 0.1875, 0.375, 0.25, 0]),
        ("t.json", '{"groups": {"a": 5}}', [0.5, 0.5, 0, 0, 0]),
        ("t.csv", "Prompt,Weight\na1,1\nd,3\n", [0.25, 0, 0, 0, 0.75]),
        ("t.yml", "prompts: {b: 2}\nassumed_harmless: 0.9", [0, 0, 0.1, 0, 0]),
        ("t.yml", "assumed_harmless: 0.5", [0.0625, 0.0625, 0.125, 0.125, 0.125]),
    ],
)
def test_shares_of_a_file(tmp_path, name, text, shares):
    assert read_traffic(written(tmp_path, name, text)).shares(PROMPTS) == pytest.approx(shares)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("t.txt", "", "unknown suffix"),
        ("t.yaml", "- a", "is a mapping"),
        ("t.yaml", "category: {law: 1}", "unknown key 'category'"),
        ("t.yaml", "prompts: {b: 1}\ngroups: {a: 1}", "one of prompts, groups, categories"),
        ("t.yaml", "prompts: {b: -1}", r"prompts\.b: -1 is not a weight"),
        ("t.yaml", "prompts: {b: 0}", "all weights are zero"),
        ("t.yaml", "prompts: {b: true}", "True is not a weight"),
        ("t.yaml", "assumed_harmless: 1", "not with, 1"),
        ("t.json", '{"prompts": {"b": 1, "b": 2}}', "doubled key 'b'"),
        ("t.json", '{"prompts": {"b": Infinity}}', "not a weight"),
        ("t.csv", "name,weight\na,1\n", "needs the column weight"),
        ("t.csv", "prompt,weight\nb,x\n", r"t\.csv:2: weight 'x'"),
        ("t.csv", "prompt,weight\nb,1\nb,2\n", r"t\.csv:3: 'b' for the second time"),
    ],
)
def test_what_is_refused(tmp_path, name, text, said):
    with pytest.raises(ConfigError, match=said):
        read_traffic(written(tmp_path, name, text))


def test_an_unknown_name_is_told_with_the_nearest(tmp_path):
    mix = read_traffic(written(tmp_path, "t.yaml", "categories: {heath: 1}"))
    with pytest.raises(
        ConfigError, match="no audited prompt has the category 'heath'; did you mean 'health'"
    ):
        mix.shares(PROMPTS)
