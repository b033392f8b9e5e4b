"""``all`` and ``any``: three-valued logic, by its whole truth table."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tailrisk.cli.jobfiles import named_paths, sources
from tailrisk.config import Config
from tailrisk.errors import ConfigError
from tailrisk.judges import build_judge, preflight
from tailrisk.judges.combined import CombinedJudge
from tailrisk.records import JudgedTexts, Verdict
from tailrisk.report.words import event_in_words

SAFE, HARM, UNSURE = Verdict.SAFE, Verdict.HARM, Verdict.UNDETERMINED
ROWS = list(itertools.product((SAFE, HARM, UNSURE), repeat=3))


class Fixed:
    """Says what it was told: ``verdicts`` by answer, scores in between 0 and 1 that differ by judge."""

    def __init__(self, number: int, verdicts: list[Verdict]) -> None:
        self.number, self.verdicts = number, verdicts

    def judge(self, prompt: str, responses: Any) -> JudgedTexts:
        scores = [
            math.nan if v == UNSURE else 0.1 * (self.number + 1) + (0.5 if v == HARM else 0.0)
            for v in self.verdicts
        ]
        errors = [f"error {self.number}" if v == UNSURE else "" for v in self.verdicts]
        return JudgedTexts(np.array(self.verdicts, dtype=np.int8), np.array(scores), errors)


def combined(deciding: Verdict) -> JudgedTexts:
    judges = tuple(Fixed(k, [row[k] for row in ROWS]) for k in range(3))
    return CombinedJudge(judges, deciding).judge("p", [""] * len(ROWS))


@pytest.mark.parametrize(("deciding", "pick"), [(SAFE, min), (HARM, max)])
def test_the_whole_truth_table(deciding, pick):
    found = combined(deciding)
    for i, row in enumerate(ROWS):
        want = deciding if deciding in row else UNSURE if UNSURE in row else row[0]
        assert found.verdicts[i] == want, row
        scores = [0.1 * (k + 1) + (0.5 if v == HARM else 0.0) for k, v in enumerate(row) if v != UNSURE]
        if want == UNSURE:
            assert math.isnan(found.scores[i])
            expected = [f"judges.{k}: error {k}" for k, v in enumerate(row) if v == UNSURE]
            assert found.errors[i] == "; ".join(expected)
        else:
            assert found.scores[i] == pick(scores)
            assert found.errors[i] == ""


def config(base: Path, judge: dict[str, Any], **more: Any) -> Config:
    values = {"target": {"model": "smollm2"}, "prompts": {"path": "p.txt"}, "judge": judge, **more}
    return Config.model_validate(values).at(base)


NESTED = {
    "kind": "all",
    "judges": [
        {"kind": "python", "function": "trait.py:score", "threshold": 0.9},
        {
            "kind": "any",
            "judges": [{"kind": "regex", "pattern": "x"}, {"kind": "python", "function": "other.py:f"}],
        },
    ],
}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    (tmp_path / "p.txt").write_text("a prompt\n")
    (tmp_path / "trait.py").write_text("import helper\n\n\ndef score(p, r):\n    return helper.size(r)\n")
    (tmp_path / "helper.py").write_text("def size(r):\n    return len(r) / 10\n")
    (tmp_path / "other.py").write_text("def f(p, r):\n    return float('y' in r)\n")
    return tmp_path


def test_combinations_nest_and_each_judge_keeps_its_threshold(base):
    judge = build_judge(config(base, NESTED))
    answers = ["x", "y" * 8, "y" * 9, "x" * 12, "z" * 12]
    assert judge.judge("p", answers).verdicts.tolist() == [SAFE, SAFE, HARM, HARM, SAFE]


def test_the_files_of_judges_inside_go_along(base):
    sent = {source.path.name for source in sources(config(base, NESTED))}
    assert sent == {"p.txt", "trait.py", "helper.py", "other.py"}
    fields = [named.field for named in named_paths(config(base, NESTED))]
    assert fields == ["prompts.path", "judge.judges.0.function", "judge.judges.1.judges.1.function"]


def test_the_files_of_judge_models_go_along(base):
    (base / "folder").mkdir()
    for name in ("config.json", "model.safetensors", "adapter_config.json", "adapter_model.safetensors"):
        (base / "folder" / name).write_text("{}")
    model = {"kind": "strongreject", "model": "folder", "adapter": "folder"}
    found = {s.path.name for s in sources(config(base, model))}
    assert {"config.json", "model.safetensors", "adapter_model.safetensors"} <= found
    hub = [named.field for named in named_paths(config(base, {"kind": "strongreject"}))]
    assert hub == ["prompts.path"], "hub ids are no paths"


def test_what_is_wrong_inside_is_said_with_its_place(base):
    bad = {"kind": "any", "judges": [{"kind": "refusal"}, {"kind": "all", "judges": NESTED["judges"]}]}
    (base / "other.py").unlink()
    with pytest.raises(
        ConfigError, match=r"^judge\.judges\.1\.judges\.1\.judges\.1\.function: 'other\.py:f'"
    ):
        preflight(config(base, bad))
    with pytest.raises(
        ConfigError, match=r"^judge\.judges\.1\.judges\.1\.judges\.1\.function: 'other\.py:f'"
    ):
        build_judge(config(base, bad))
    preflight(config(base, bad), ["judge.judges.1.judges.1.judges.1"])


@pytest.mark.parametrize(
    ("judge", "pool", "said"),
    [
        ({"kind": "refusal"}, {"tensor_parallel": 2}, "a judge of kind 'refusal' has none"),
        (NESTED, {"pipeline_parallel": 2}, "a judge of kind 'all' has none"),
        (
            {"kind": "classifier", "format": "classes", "model": "m", "label": 1},
            {"tensor_parallel": 2},
            r"are for language models; judge \(kind classifier\)",
        ),
        (
            {"kind": "any", "judges": [{"kind": "refusal"}, {"kind": "strongreject", "device": "cuda"}]},
            {"tensor_parallel": 2},
            r"judge\.judges\.1\.device is 'cuda'",
        ),
    ],
)
def test_what_cannot_be_cut_is_refused(base, judge, pool, said):
    with pytest.raises(ValueError, match=said):
        config(base, judge, cluster={"judges": {"num_cpus": 1, **pool}})


def test_a_judge_model_may_be_cut_and_its_device_is_its_own(base):
    pool = {"judges": {"num_cpus": 1, "tensor_parallel": 2, "memory": "8GiB", "labels": {"a": "b"}}}
    judge = {"kind": "any", "judges": [{"kind": "refusal"}, {"kind": "strongreject"}]}
    assert config(base, judge, cluster=pool).cluster.judges.ranks == 2
    with pytest.raises(ValueError, match=r"target\.device is 'cpu'"):
        target = {"model": "smollm2", "device": "cpu"}
        config(base, judge, target=target, cluster={"models": {"tensor_parallel": 2}})
    config(base, judge, target={"model": "smollm2", "device": "cpu"}, cluster=pool)


@pytest.mark.parametrize(
    ("judge", "said"),
    [
        ({"kind": "classifier", "format": "classes", "model": "m"}, "label: say which"),
        ({"kind": "classifier", "format": "yes_no", "model": "m"}, "template: give the question"),
        (
            {"kind": "classifier", "format": "yes_no", "model": "m", "template": "{prompt}"},
            "it must hold {response}",
        ),
        (
            {"kind": "classifier", "format": "llama_guard", "model": "m", "label": 1},
            "label is not for format llama_guard",
        ),
        (
            {"kind": "classifier", "format": "classes", "model": "m", "label": 1, "chat": True},
            "chat is not for format",
        ),
        ({"kind": "rubric", "model": "m", "rubric": "trait"}, "trait: the rubric 'trait' needs"),
        ({"kind": "rubric", "model": "m", "trait": "Cruelty"}, "trait: the rubric 'strongreject' grades no"),
        ({"kind": "all", "judges": [{"kind": "refusal"}]}, "give two or more"),
    ],
)
def test_settings_that_do_not_go_together(base, judge, said):
    with pytest.raises(ValueError, match=said):
        config(base, judge)


def test_resolved_settings_can_be_read_again(base):
    for judge in (
        {"kind": "classifier", "format": "harmbench_llama2", "model": "m"},
        {"kind": "rubric", "rubric": "coherence", "model": "m"},
        NESTED,
    ):
        resolved = config(base, judge).model_dump(mode="json")
        assert Config.model_validate(resolved).model_dump(mode="json") == resolved
    assert config(base, {"kind": "classifier", "format": "harmbench_llama2", "model": "m"}).judge.clip == 512  # pyright: ignore
    rubric: Any = config(base, {"kind": "rubric", "rubric": "coherence", "model": "m"}).judge
    assert rubric.threshold == 50.0


@pytest.mark.parametrize(
    ("judge", "words"),
    [
        ({"kind": "strongreject"}, ["google/gemma-2b", "qylu4156/strongreject-15k-v1", "0.75"]),
        (
            {"kind": "rubric", "model": "m", "rubric": "trait", "trait": "Cruelty\x07"},
            ["m", "Cruelty\\x07", "50.0 of 100"],
        ),
        ({"kind": "rubric", "model": "m"}, ["StrongREJECT rubric", "0.75 of 1"]),
        ({"kind": "rubric", "model": "m", "rubric": "coherence"}, ["coherence", "50.0 of 100"]),
        (
            {"kind": "classifier", "format": "llama_guard", "model": "g"},
            ["classifier g (llama_guard)", "at least 0.5"],
        ),
        ({"kind": "classifier", "format": "classes", "model": "c", "label": "toxic"}, ["the label toxic"]),
        (
            NESTED,
            [
                "all of these hold: (the function trait.py:score",
                "at least one of these hold: (the answer matches",
            ],
        ),
    ],
)
def test_the_report_says_what_harm_is(base, judge, words):
    said = event_in_words(config(base, judge).model_dump(mode="json")["judge"])
    assert all(word in said for word in words), said
