from __future__ import annotations

import hashlib
import json
import re
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tailrisk.config import Config
from tailrisk.errors import ConfigError, InputError, TailriskError
from tailrisk.prompts import load_prompts, prompts_digest
from tailrisk.records import Prompt

SECRET = "zebra"  # stands for harmful text: it must never be quoted in a message


@pytest.fixture
def load(tmp_path):
    def from_file(name: str, content: str | bytes | list, **keys) -> list[Prompt]:
        if isinstance(content, list):
            content = "".join(json.dumps(row) + "\n" for row in content)
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return load_prompts(configured(tmp_path, path=name, **keys))

    return from_file


def configured(folder: Path, **keys) -> Config:
    sections = {"target": {"model": "m"}, "judge": {"kind": "refusal"}, "prompts": keys}
    return Config.model_validate(sections).at(folder)


def faults(load, name: str, content, **keys) -> list[str]:
    with pytest.raises(InputError) as caught:
        load(name, content, **keys)
    message = str(caught.value)
    assert SECRET not in message
    return [line.split(f"{name}:", 1)[1] for line in message.splitlines()]


def texts(prompts: list[Prompt]) -> list[str]:
    return [p.text for p in prompts]


def test_jsonl_with_ids_categories_groups_and_chats(load):
    chat = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    ]
    found = load(
        "p.jsonl",
        [
            {"id": "x.1", "prompt": "one", "category": "law", "group": "g", "source": 3},
            {"id": 7, "prompt": chat},
            {"prompt": "three"},
        ],
    )
    assert found[0] == Prompt(
        id="x.1", messages=({"role": "user", "content": "one"},), category="law", group="g"
    )
    assert found[1].id == "7" and list(found[1].messages) == chat and found[1].text == "c"
    assert found[2].id == hashlib.sha256(b"three").hexdigest()[:12]


def test_a_group_column_may_be_named_and_counts_in_the_digest(load):
    rows = [{"prompt": "one", "base": "b1"}, {"prompt": "two", "base": None}]
    named = load("p.jsonl", rows, group="Base")
    assert [p.group for p in named] == ["b1", None]
    plain = load("p.jsonl", rows)
    assert [p.group for p in plain] == [None, None]
    assert prompts_digest(named) != prompts_digest(plain)
    with pytest.raises(
        ConfigError, match=r"prompts.group: .* has no column 'family'; its columns: prompt, base"
    ):
        load("p.jsonl", rows, group="family")


def test_a_perturbation_is_a_label_of_its_group(load):
    rows = [
        {"prompt": "one", "group": "g", "Perturbation": ""},
        {"prompt": "two", "group": "g", "Perturbation": "loud"},
    ]
    found = load("p.jsonl", rows)
    assert [p.perturbation for p in found] == [None, "loud"]
    renamed = [{**r, "how": r["Perturbation"]} for r in rows]
    assert load("p.jsonl", renamed, perturbation="how") == found
    assert prompts_digest(found) == prompts_digest([replace(p, perturbation=None) for p in found])
    with pytest.raises(ConfigError, match=r"prompts.perturbation: .* has no column 'kind'"):
        load("p.jsonl", rows, perturbation="kind")


@pytest.mark.parametrize(
    ("header", "row", "expected"),
    [
        ("category,source,forbidden_prompt", "law,x,do", ("do", None, "law")),
        ("goal,target", "do,sure", ("do", None, None)),
        ("Index,Goal,Target,Behavior,Category,Source", "4,do,sure,short,law,x", ("do", "4", "law")),
        ("Behavior,FunctionalCategory,SemanticCategory,Tags,ContextString,BehaviorID",
         "do,std,law,,,b_1", ("do", "b_1", "law")),
        ("Behavior,ContextString,BehaviorID", "do,about,b_1", ("about\n\n---\n\ndo", "b_1", None)),
        ("instruction,category", "do,law", ("do", None, "law")),
        ("prompt,intents", "do,x", ("do", None, None)),
        ("input,target,id", "do,x,i", ("do", "i", None)),
        ("QUESTION", "do", ("do", None, None)),
    ],
)  # fmt: skip
def test_columns_of_known_sets_are_found(load, header, row, expected):
    (found,) = load("p.csv", f"{header}\n{row}\n")
    text, id_, category = expected
    assert found.text == text and found.category == category
    assert found.id == (id_ or hashlib.sha256(text.encode()).hexdigest()[:12])


def test_columns_named_in_the_configuration(load):
    (found,) = load("p.csv", "prompt,Ask,key,kind\nx,do,k1,law\n", prompt="ask", id="key", category="kind")
    assert (found.text, found.id, found.category) == ("do", "k1", "law")
    with pytest.raises(ConfigError, match=r"prompts\.id: .* has no column 'nope'; its columns: prompt"):
        load("p.csv", "prompt\nx\n", id="nope")
    with pytest.raises(ConfigError, match=r"no column of prompts.*among a, b"):
        load("p.csv", "a,b\nx,y\n")


def test_the_same_set_in_every_format_gives_the_same_prompts(load, tmp_path):
    rows = [{"id": f"p{i}", "prompt": f'say "{i}", é\nthen more' if i else "zero"} for i in range(4)]
    quoted = "".join(f'{r["id"]},"{r["prompt"].replace(chr(34), chr(34) * 2)}"\r\n' for r in rows)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "p.parquet")
    one = load("p.jsonl", rows)
    assert load("p.csv", "id,prompt\r\n" + quoted) == one
    assert load("p.tsv", "id\tprompt\n" + re.sub(r"^(p\d),", r"\1\t", quoted, flags=re.M)) == one
    assert load_prompts(configured(tmp_path, path="p.parquet")) == one
    assert prompts_digest(one) == prompts_digest(load("q.jsonl", rows))


def test_parquet_takes_chats_and_whole_numbers(tmp_path):
    rows = [{"index": 3, "messages": [{"role": "user", "content": "a"}]}, {"index": None, "messages": None}]
    pq.write_table(pa.Table.from_pylist(rows[:1]), tmp_path / "p.parquet")
    (found,) = load_prompts(configured(tmp_path, path="p.parquet"))
    assert (found.id, found.text) == ("3", "a")
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "p.parquet")
    with pytest.raises(InputError, match=r"p\.parquet:2: no 'messages'"):
        load_prompts(configured(tmp_path, path="p.parquet"))
    (tmp_path / "p.parquet").write_bytes(b"PAR1 nonsense")
    with pytest.raises(InputError, match="cannot be read as parquet"):
        load_prompts(configured(tmp_path, path="p.parquet"))


def test_plain_text_is_one_prompt_a_line(load):
    found = load("p.txt", "\ufeffone\r\n  two \n\n\n")
    assert texts(found) == ["one", "  two "]
    assert found[0].id == hashlib.sha256(b"one").hexdigest()[:12]


def test_a_byte_order_mark_is_tolerated(load):
    assert texts(load("p.jsonl", '\ufeff{"prompt": "a"}\n')) == ["a"]
    assert texts(load("p.csv", "\ufeffprompt\na\n")) == ["a"]


def test_the_limit_applies_after_the_whole_file_was_checked(load):
    rows = [{"id": str(i), "prompt": f"t{i}"} for i in range(5)]
    assert [p.id for p in load("p.jsonl", rows, limit=2)] == ["0", "1"]
    assert len(load("p.jsonl", rows, limit=99)) == 5
    assert faults(load, "p.jsonl", [*rows, {"prompt": ""}], limit=2) == ["6: 'prompt' is empty"]


BAD_ROWS = {
    "empty": ({"prompt": ""}, "'prompt' is empty"),
    "white space": ({"prompt": " \t\n\u00a0"}, "'prompt' is empty"),
    "null": ({"prompt": None}, "no 'prompt'"),
    "absent": ({"id": "k"}, "no 'prompt'"),
    "number": ({"prompt": 3}, "'prompt' is a number, not a text"),
    "boolean": ({"prompt": True}, "'prompt' is a boolean"),
    "object": ({"prompt": {"a": SECRET}}, "'prompt' is an object"),
    "duplicate id": ({"id": "first", "prompt": "other"}, "duplicate id 'first' (first at line 1)"),
    "duplicate text": ({"id": "o", "prompt": f"{SECRET} 1"}, "duplicate text (first at line 1)"),
    "path as id": ({"id": "../x", "prompt": "a"}, "the id '../x' is refused"),
    "dots as id": ({"id": "..", "prompt": "a"}, "the id '..' is refused"),
    "long id": ({"id": "a" * 129, "prompt": "a"}, "is refused: 1 to 128"),
    "line break in id": ({"id": "a\n", "prompt": "a"}, r"the id 'a\n' is refused"),
    "list as id": ({"id": ["a"], "prompt": "a"}, "the id is a list"),
    "boolean as id": ({"id": True, "prompt": "a"}, "the id is a boolean"),
    "fraction as id": ({"id": 1.5, "prompt": "a"}, "the id is a number, not a text or a whole number"),
    "NUL": ({"prompt": f"{SECRET}\0"}, "NUL"),
    "lone surrogate": ({"prompt": f"{SECRET}\ud800"}, "half of a surrogate pair at character 5"),
    "surrogate in category": ({"prompt": "a", "category": "\udc00"}, "'category' holds half"),
    "object as category": ({"prompt": "a", "category": {}}, "'category' is an object"),
    "no messages": ({"prompt": []}, "'prompt' is an empty list"),
    "texts as messages": ({"prompt": [SECRET]}, "prompt.0 is not a message"),
    "role": ({"prompt": [{"role": "wizard", "content": SECRET}]}, "prompt.0 has an unknown role 'wizard'"),
    "role type": ({"prompt": [{"role": 3, "content": SECRET}]}, "unknown role '3'"),
    "system": ({"prompt": [{"role": "system", "content": SECRET}]}, "target.system_prompt"),
    "not from the user": (
        {"prompt": [{"role": "user", "content": "a"}, {"role": "assistant", "content": SECRET}]},
        "the last message is not from the user",
    ),
    "content type": ({"prompt": [{"role": "user", "content": [SECRET]}]}, "'prompt.0' is a list, not a text"),
    "content empty": ({"prompt": [{"role": "user", "content": ""}]}, "'prompt.0' is empty"),
    "key of message": (
        {"prompt": [{"role": "user", "content": "a", "tool_calls": [1]}]}, "unknown key 'tool_calls'",
    ),
}  # fmt: skip
BAD_LINES = {
    "not JSON": (b'{"prompt": "zebra"', "not valid JSON"),
    "list": (b'["zebra"]', "a JSON list, not an object"),
    "text": (b'"zebra"', "a JSON str, not an object"),
    "doubled key": (b'{"prompt": "zebra", "prompt": "b"}', "doubled key 'prompt'"),
    "not UTF-8": (b'{"prompt": "zebra \xff"}', "not UTF-8 text at byte 18"),
    "long line": (b'{"prompt": "' + b"zebra" * 2_000_000 + b'"}', "longer than 1,000,000 bytes"),
    "deep": (b'{"prompt": ' + b"[" * 200_000 + b"}", "not valid JSON"),
    "long number": (b'{"prompt": ' + b"9" * 5000 + b"}", "not valid JSON"),
}
GOOD = {"id": "first", "prompt": f"{SECRET} 1"}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_each_bad_row_is_named_by_its_line(load, name):
    row, said = BAD_ROWS[name]
    (fault,) = faults(load, "p.jsonl", [GOOD, row, {"prompt": "last"}])
    assert fault.startswith("2: ") and said in fault


@pytest.mark.parametrize("name", BAD_LINES)
def test_each_bad_line_is_named_and_the_rest_is_read(load, name):
    line, said = BAD_LINES[name]
    content = json.dumps(GOOD).encode() + b"\n" + line + b'\n\n{"prompt": ""}\n'
    first, second = faults(load, "p.jsonl", content)
    assert first.startswith("2: ") and said in first
    assert second == "4: 'prompt' is empty"


def test_all_bad_rows_are_told_in_one_pass(load):
    lines = [json.dumps(GOOD).encode()]
    lines += [json.dumps(row).encode() for row, _ in BAD_ROWS.values()]
    lines += [line for line, _ in BAD_LINES.values()]
    found = faults(load, "p.jsonl", b"\n".join(lines))
    # "absent" has an id that is used once, so each row has exactly one fault
    assert [int(f.split(":")[0]) for f in found] == list(range(2, len(lines) + 1))
    for fault, (_, said) in zip(found, [*BAD_ROWS.values(), *BAD_LINES.values()], strict=True):
        assert said in fault


def test_a_flood_of_faults_is_counted_not_printed(load):
    found = faults(load, "p.jsonl", [{"prompt": ""}] * 500)
    assert len(found) == 51 and found[-1].strip() == "and 450 more problems"


def test_long_lines_are_read_in_bounded_memory(load, tmp_path):
    with (tmp_path / "big.jsonl").open("wb") as file:
        for _ in range(60):
            file.write(b"z" * 1_000_000)
    tracemalloc.start()
    with pytest.raises(InputError, match=r"big\.jsonl:1: longer than"):
        load_prompts(configured(tmp_path, path="big.jsonl"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10_000_000


def test_faults_of_csv_and_txt(load):
    assert faults(load, "p.txt", "a\n\nb\n \nc\na\n\n") == [
        "2: an empty line; each line is one prompt, use jsonl for prompts of several lines",
        "4: an empty line; each line is one prompt, use jsonl for prompts of several lines",
        "6: duplicate text (first at line 1)",
    ]
    csv = f'id,prompt\na,"{SECRET}\nmore"\nb\nc,\nd,{SECRET},3\n../x,y\n'.encode()
    assert faults(load, "p.csv", csv + b"e,\xff\nf,ok\n") == [
        "4: 1 cells, the header has 2",
        "5: 'prompt' is empty",
        "6: 3 cells, the header has 2",
        "7: the id '../x' is refused: 1 to 128 of the characters A-Z a-z 0-9 . _ -",
        "8: not UTF-8 text at byte 2; save the file as UTF-8",
    ]
    (fault,) = faults(load, "p.csv", f'id,prompt\na,b\nc,"{SECRET}\nd,e\n')
    assert fault.startswith("3: the row that begins here is not valid CSV")
    assert faults(load, "p.csv", "prompt,prompt\na,b\n") == ["1: two columns have the same name"]
    assert faults(load, "p.csv", "prompt\n" + "z" * 2_000_000 + "\nb\n") == ["2: longer than 1,000,000 bytes"]
    assert "UTF-16?" in faults(load, "p.csv", "prompt\na\n".encode("utf-16"))[0]


@pytest.mark.parametrize("name", ["p.jsonl", "p.csv", "p.txt"])
@pytest.mark.parametrize("content", ["", "\n"])
def test_a_set_without_prompts(load, name, content):
    with pytest.raises(InputError, match="no prompts"):
        load(name, content)


def test_files_that_are_no_sets(load, tmp_path):
    with pytest.raises(ConfigError, match=r"unknown suffix; one of \.jsonl, \.csv"):
        load("p.xlsx", "a")
    with pytest.raises(ConfigError, match="no such file"):
        load_prompts(configured(tmp_path, path="nowhere.jsonl"))
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(ConfigError, match="no such file"):
        load_prompts(configured(tmp_path, path="folder.csv"))


def test_the_digest_sees_ids_texts_roles_and_order():
    def one(id_: str, *contents: str, category: str | None = None) -> Prompt:
        roles = ("user", "assistant", "user")
        messages = tuple({"role": r, "content": c} for r, c in zip(roles, contents, strict=False))
        return Prompt(id=id_, messages=messages, category=category)

    base = [one("a", "x"), one("b", "y")]
    assert prompts_digest(base) == prompts_digest([one("a", "x", category="c"), one("b", "y")])
    others = [
        base[::-1],
        base[:1],
        [one("a", "x"), one("b", "z")],
        [one("a2", "x"), one("b", "y")],
        [one("a", "x", "k", "x"), one("b", "y")],
        [one("a", "y"), one("b", "x")],
    ]
    assert len({prompts_digest(p) for p in [base, *others]}) == 7


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["f.jsonl", "f.csv", "f.txt", "f.parquet"]), st.binary(max_size=200))
def test_any_bytes_give_prompts_or_one_of_our_errors(load, name, content):
    try:
        found = load(name, content)
    except TailriskError:
        return
    assert len({p.id for p in found}) == len(found) > 0
    assert all(p.text.strip() and "\0" not in p.text for p in found)
