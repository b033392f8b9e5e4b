"""All kinds: the conformance suite, the registry against the schema, and a journey to another process."""

from __future__ import annotations

import pickle
import subprocess
import sys
import typing
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from check_judge import check_judge
from judgekit import make_judge_model
from judgeserver import TEMPLATE, JudgeServer, served

from tailrisk import config as schema
from tailrisk.config import Config
from tailrisk.judges import KINDS, build_judge, preflight
from tailrisk.judges.linear import LinearJudge, write_judge

FUNCTION = """
def judge(prompt, response):
    if "\\x00" in response:
        raise ValueError("no NUL, please: " + response)
    if not response.strip():
        return None
    return len(response) / 100
"""

MODEL = {"dtype": "float32", "batch": 5}
LIGHT: dict[str, dict[str, object]] = {
    "refusal": {"kind": "refusal"},
    "regex": {"kind": "regex", "pattern": r"word|zero\W"},
    "python": {"kind": "python", "function": "own.py:judge", "threshold": 0.5},
    "linear": {"kind": "linear", "weights": "own.safetensors"},
    "endpoint": {"kind": "endpoint", "model": "grader", "rubric": "yes_no", "template": TEMPLATE},
    "all": {"kind": "all", "judges": [{"kind": "refusal"}, {"kind": "python", "function": "own.py:judge"}]},
    "any": {"kind": "any", "judges": [{"kind": "refusal"}, {"kind": "python", "function": "own.py:judge"}]},
}
MODELS: dict[str, dict[str, object]] = {
    "strongreject": {"kind": "strongreject", "model": "strongreject", "adapter": None, **MODEL},
    "rubric": {"kind": "rubric", "model": "rubric", "rubric": "coherence", **MODEL},
    "classifier": {"kind": "classifier", "format": "harmbench_mistral", "model": "classifier", **MODEL},
}
SPECS = {**LIGHT, **MODELS}


@pytest.fixture(scope="module", autouse=True)
def endpoint() -> Iterator[None]:
    with served(JudgeServer(grade=lambda content: "yes" if "word" in content else "no")) as server:
        SPECS["endpoint"]["url"] = server.url
        yield


def make_config(base: Path, **judge: object) -> Config:
    values = {"target": {"model": "m"}, "prompts": {"path": "p.jsonl"}, "judge": judge}
    return Config.model_validate(values).at(base)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("judges")
    (folder / "own.py").write_text(FUNCTION)
    weights = np.random.default_rng(3).normal(size=4096).astype(np.float32)
    write_judge(folder / "own.safetensors", LinearJudge(weights, 0.1, 0.5))
    grades, yes_no = {"1": 0.6, "4": 0.3}, {"no": 0.8, "yes": 0.1}
    for name, architecture, plain, bad in (
        ("strongreject", "gemma", grades, {"5": 0.9}),
        ("rubric", "llama", {"8": 0.5, "40": 0.4}, {"99": 0.9}),
        ("classifier", "mistral", yes_no, {"yes": 0.9}),
    ):
        laws: dict[str, typing.Any] = {"plain": plain, "bad": bad, "odd": {"x": 0.9}}
        make_judge_model(folder / name, architecture, numbers=True, **laws)
    return folder


@pytest.mark.parametrize("kind", sorted(LIGHT))
def test_keeps_the_promises_of_a_judge(base: Path, kind: str) -> None:
    check_judge(build_judge(make_config(base, **LIGHT[kind])))


@pytest.mark.parametrize("kind", sorted(MODELS))
def test_a_model_keeps_them_up_to_the_rounding_of_its_batches(base: Path, kind: str) -> None:
    check_judge(build_judge(make_config(base, **MODELS[kind])), slack=1e-3 if kind == "rubric" else 1e-5)


def test_every_kind_of_the_schema_has_a_builder_and_is_checked_here() -> None:
    union = typing.get_args(schema.JudgeConfig)[0]
    kinds = {typing.get_args(m.model_fields["kind"].annotation)[0] for m in typing.get_args(union)}
    assert kinds == set(KINDS) == set(SPECS)


@pytest.mark.parametrize("kind", sorted(SPECS))
def test_preflight_accepts_what_build_accepts(base: Path, kind: str) -> None:
    preflight(make_config(base, **SPECS[kind]))


@pytest.mark.parametrize("kind", sorted(LIGHT))
def test_a_pickled_configuration_builds_the_same_judge_in_another_process(base: Path, kind: str) -> None:
    config = make_config(base, **SPECS[kind])
    texts = ["word " * 30, "a few words that say something new today", "short"]
    here = build_judge(config).judge("prompt", texts).verdicts.tolist()
    code = (
        "import pickle, sys; from tailrisk.judges import build_judge; "
        "config = pickle.loads(bytes.fromhex(sys.argv[1])); "
        f"print(build_judge(config).judge('prompt', {texts!r}).verdicts.tolist())"
    )
    there = subprocess.run(
        [sys.executable, "-c", code, pickle.dumps(config).hex()],
        capture_output=True,
        text=True,
        check=True,
        cwd="/",
    )
    assert there.stdout.strip() == str(here)


def test_judges_import_none_of_the_heavy_libraries() -> None:
    heavy = {"torch", "ray", "mlflow", "transformers"}
    code = f"import sys, tailrisk.judges; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_the_suite_itself_catches_a_judge_that_looks_at_the_whole_batch(base: Path) -> None:
    judge = build_judge(make_config(base, **SPECS["refusal"]))

    class Leaky:
        def judge(self, prompt, responses):
            judged = judge.judge(prompt, responses)
            return judged._replace(verdicts=np.full_like(judged.verdicts, len(responses) > 2))

    with pytest.raises(AssertionError):
        check_judge(Leaky())
