"""Judges' models cut into two processes: the verdicts and scores of one, on every rank."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from judgekit import make_judge_model
from judgerank import judged
from tinymodel import make_tiny_adapter
from tworanks import run_two

LAWS: dict[str, Any] = {
    "plain": {"1": 0.6, "no": 0.2},
    "bad": {"5": 0.5, "4": 0.2, "no": 0.1, "yes": 0.15},
    "odd": {"x": 0.9},
}
SAID: dict[str, Any] = {"plain": {"2": 0.99}, "bad": {"9": 0.99}, "odd": {"x": 0.99}}
FLOAT = {"dtype": "float32"}
JUDGES: dict[str, dict[str, Any]] = {
    "strongreject": {
        "kind": "strongreject",
        "model": "grades",
        "adapter": "adapter",
        "least_mass": 0.2,
        **FLOAT,
    },
    "classifier": {
        "kind": "all",
        "judges": [
            {"kind": "refusal", "min_words": 1},
            *[
                {"kind": "classifier", "format": f, "model": "words", "least_mass": 0.2, **FLOAT}
                for f in ("harmbench_llama2", "harmbench_mistral")
            ],
        ],
    },
    "rubric": {"kind": "rubric", "rubric": "coherence", "model": "digits", **FLOAT},
}


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    make_judge_model(folder / "grades", "gemma", **LAWS, layers=2)
    make_judge_model(folder / "words", "mistral", **LAWS, layers=2)
    done = {"<eos>": 0.99}
    make_judge_model(
        folder / "digits", "llama", **SAID, layers=2, after={"2": done, "9": {"0": 0.9}, "0": done}
    )
    make_tiny_adapter(folder / "adapter", folder / "grades", spread=0.2, target_modules=("lm_head", "o_proj"))
    jobs = [
        {"name": f"{way}-{name}", "parallel": parallel, "judge": judge}
        for way, parallel in (("tensor", [2, 1]), ("pipeline", [1, 2]))
        for name, judge in JUDGES.items()
    ]
    (folder / "jobs.json").write_text(json.dumps(jobs))
    run_two(Path(__file__).with_name("judgerank.py"), folder)
    return folder


@pytest.mark.parametrize("name", JUDGES)
@pytest.mark.parametrize("way", ["tensor", "pipeline"])
def test_two_processes_judge_as_one(ranks: Path, way: str, name: str) -> None:
    verdicts, scores, errors = judged(ranks, JUDGES[name])
    assert len(set(verdicts)) == 3, "each verdict is there"
    for rank in (0, 1):
        there = json.loads((ranks / f"{way}-{name}.{rank}.json").read_text())
        assert there[0] == verdicts
        np.testing.assert_allclose(
            np.array(there[1], dtype=float), np.array(scores, dtype=float), rtol=0, atol=1e-4
        )
        assert [bool(e) for e in there[2]] == [bool(e) for e in errors]
