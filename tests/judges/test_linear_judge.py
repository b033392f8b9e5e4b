"""The linear judge against a score by hand, and its file against everything that it must not be."""

from __future__ import annotations

import math
import pickle
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from tailrisk.config import Config
from tailrisk.config import LinearJudge as Spec
from tailrisk.errors import ConfigError, StoreError
from tailrisk.judges import linear, preflight
from tailrisk.judges.linear import FORMAT, LinearJudge, read_judge, write_judge
from tailrisk.judges.wordfeatures import ANSWER_WORDS, VERSION, features
from tailrisk.records import Verdict
from tailrisk.store.manifest import check_resume, make_manifest

SIZE = 2**20
"""So large that the few names of a test do not meet."""
HEADER = {"format": FORMAT, "features": str(VERSION), "bias": "-1.0", "threshold": "0.5"}


def place(name: str, size: int = SIZE) -> int:
    return zlib.crc32(name.encode()) % size


def written(prompt: str, response: str) -> dict[int, float]:
    found: dict[int, float] = {}
    for at, value in zip(*features(prompt, response, SIZE), strict=True):
        found[int(at)] = found.get(int(at), 0.0) + float(value)
    return found


def judge_of(threshold: float = 0.5, bias: float = 0.0, **weights: float) -> LinearJudge:
    """Weights by the names of features, spaces written as ``_``."""
    table = np.zeros(SIZE, dtype=np.float32)
    for name, weight in weights.items():
        table[place(name.replace("_", " "))] = weight
    return LinearJudge(table, bias, threshold)


def test_features_are_words_pairs_openings_the_prompt_and_two_numbers() -> None:
    words = ["first", "i", "cannot", "first i", "i cannot"]
    openings = ["first", "i", "i cannot"]
    expected = {place(f"r {name}"): 1 / math.sqrt(5) for name in words}
    expected |= {place(f"s {name}"): 1 / math.sqrt(3) for name in openings}
    expected |= {place(f"p {name}"): 1 / math.sqrt(3) for name in ("may", "i", "may i")}
    expected |= {place("n length"): math.log(4) / 5, place("n new"): 2 / 3}
    assert written("May I?", "First: I can't!") == pytest.approx(expected)


def test_a_text_without_words_has_only_its_length() -> None:
    assert written("", " \n") == {place("n length"): 0.0, place("n new"): 0.0}


def test_what_lies_behind_the_cap_is_not_seen() -> None:
    body = " ".join(["same"] * ANSWER_WORDS)
    assert written("p", f"{body} other") == written("p", f"{body} word")


def test_places_are_the_same_everywhere() -> None:
    """Weights are of no use where these differ: then ``VERSION`` must."""
    at, values = features("How are you?", "I'm well. You can't see it, though", 2**16)
    assert int(np.sum(at)) == SUM_OF_PLACES
    assert float(values @ np.arange(len(values))) == pytest.approx(SUM_OF_VALUES)


SUM_OF_PLACES, SUM_OF_VALUES = 966_731, 156.45708520680105


def test_the_score_is_the_logistic_function_of_the_weighted_sum() -> None:
    judge = judge_of(bias=-0.5, r_steal=4.0, s_first=1.0, p_how=-0.25)
    response = "First steal"
    # Three names each: "first", "steal" and the pair, in the answer and in its opening; one in the prompt.
    logit = -0.5 + 4 / math.sqrt(3) + 1 / math.sqrt(2) - 0.25
    judged = judge.judge("How?", [response, ""])
    assert judged.scores.tolist() == pytest.approx([1 / (1 + math.exp(-logit)), 1 / (1 + math.exp(0.75))])
    assert judged.verdicts.tolist() == [Verdict.HARM, Verdict.SAFE]
    assert judged.errors == ["", ""]


@pytest.mark.parametrize(("bias", "score"), [(-1e6, 0.0), (1e6, 1.0)])
def test_no_sum_is_too_large(bias: float, score: float) -> None:
    assert judge_of(bias=bias).score("p", "an answer") == score


def test_a_file_brings_back_the_judge_and_its_threshold_gives_way(tmp_path: Path) -> None:
    judge = judge_of(threshold=0.8, bias=math.pi, r_word=1.5)
    write_judge(tmp_path / "j.safetensors", judge, {"note": "for people"})
    again = linear.build(Spec(kind="linear", weights="j.safetensors"), tmp_path)
    assert (again.bias, again.threshold) == (math.pi, 0.8)
    np.testing.assert_array_equal(again.weights, judge.weights)
    stricter = linear.build(Spec(kind="linear", weights="j.safetensors", threshold=0.99), tmp_path)
    assert stricter.threshold == 0.99
    text = ["a word"]
    assert again.judge("p", text).scores[0] == stricter.judge("p", text).scores[0]
    assert [j.judge("p", text).verdicts[0] for j in (again, stricter)] == [Verdict.HARM, Verdict.SAFE]


def header(**changes: str | None) -> dict[str, str]:
    return {key: value for key, value in {**HEADER, **changes}.items() if value is not None}


def tensor(*shape: int, fill: float = 0.0, dtype: Any = np.float32) -> dict[str, np.ndarray]:
    return {"weights": np.full(shape, fill, dtype=dtype)}


HOSTILE: dict[str, tuple[dict[str, np.ndarray], dict[str, str], str]] = {
    "another format": (tensor(8), header(format="other"), "not a linear judge"),
    "no header": (tensor(8), {"x": "y"}, "not a linear judge"),
    "another name": ({"table": np.zeros(8, np.float32)}, HEADER, "not a linear judge"),
    "one tensor more": ({**tensor(8), "more": np.zeros(1, np.float32)}, HEADER, "not a linear judge"),
    "another version": (tensor(8), header(features=str(VERSION + 1)), "version"),
    "no version": (tensor(8), header(features=None), "version"),
    "two dimensions": (tensor(2, 4), HEADER, r"shape \[2, 4\]"),
    "no numbers": (tensor(0), HEADER, r"shape \[0\]"),
    "double precision": (tensor(8, dtype=np.float64), HEADER, "float64"),
    "whole numbers": (tensor(8, dtype=np.int32), HEADER, "int32"),
    "NaN": (tensor(8, fill=math.nan), HEADER, "not finite"),
    "infinite": (tensor(8, fill=-math.inf), HEADER, "not finite"),
    "a bias that is NaN": (tensor(8), header(bias="nan"), "not finite"),
    "a bias in words": (tensor(8), header(bias="much"), "no number"),
    "no threshold": (tensor(8), header(threshold=None), "no number"),
    "a threshold above 1": (tensor(8), header(threshold="1.5"), "no probability"),
    "a threshold that is NaN": (tensor(8), header(threshold="nan"), "no probability"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_another_file_is_a_configuration_error_that_names_the_key(tmp_path: Path, name: str) -> None:
    tensors, notes, says = HOSTILE[name]
    path = tmp_path / "j.safetensors"
    save_file(tensors, path, metadata=notes)
    with pytest.raises(ConfigError, match=rf"judge\.weights.*{says}"):
        read_judge(path)


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff" * 100, pickle.dumps({"weights": [1.0]}), None])
def test_what_is_no_safetensors_file_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "j.safetensors"
    if content is None:
        write_judge(path, judge_of())
        content = path.read_bytes()[:-1]
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"judge\.weights.*not a safetensors file"):
        read_judge(path)


def test_a_file_that_is_not_there_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"judge\.weights: there is no file"):
        read_judge(tmp_path / "j.safetensors")
    with pytest.raises(ConfigError, match=r"judge\.weights.*cannot be read"):
        read_judge(tmp_path)


def test_a_run_is_not_resumed_with_other_weights(tmp_path: Path) -> None:
    settings = {"kind": "linear", "weights": "j.safetensors"}
    values = {"target": {"model": "m"}, "prompts": {"path": "p.jsonl"}, "judge": settings}
    config = Config.model_validate(values).at(tmp_path)
    write_judge(tmp_path / "j.safetensors", judge_of())
    before = make_manifest(config, [], preflight(config))
    assert check_resume(tmp_path, before, make_manifest(config, [], preflight(config))) == []
    write_judge(tmp_path / "j.safetensors", judge_of(), {"a note": "for people", "another": "note"})
    assert check_resume(tmp_path, before, make_manifest(config, [], preflight(config))) == []
    write_judge(tmp_path / "j.safetensors", judge_of(r_word=0.001))
    with pytest.raises(StoreError, match=r"hashes\.judge\.weights"):
        check_resume(tmp_path, before, make_manifest(config, [], preflight(config)))


def test_the_digest_is_of_all_that_verdicts_depend_on() -> None:
    judges = [judge_of(), judge_of(bias=0.1), judge_of(threshold=0.6), judge_of(r_word=1e-30)]
    assert len({judge.digest for judge in judges}) == 4
    assert judge_of(bias=0.1).digest == judges[1].digest


def test_other_judges_have_no_files_to_tell_of(tmp_path: Path) -> None:
    values = {"target": {"model": "m"}, "prompts": {"path": "p.jsonl"}, "judge": {"kind": "refusal"}}
    assert preflight(Config.model_validate(values).at(tmp_path)) == {}
