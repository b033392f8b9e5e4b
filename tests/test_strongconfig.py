"""The section ``strong_judge``: what is refused before anything is drawn."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tailrisk.configfile import load_config
from tailrisk.errors import ConfigError
from tailrisk.judges import build_strong_judge, preflight

BASE = {
    "target": {"model": "some/model"},
    "prompts": {"path": "prompts.txt"},
    "judge": {"kind": "refusal"},
    "strong_judge": {"judge": {"kind": "regex", "pattern": "bomb"}, "calls": 500},
}


def load(folder: Path, **changes):
    (folder / "audit.yaml").write_text(yaml.safe_dump({**BASE, **changes}))
    return load_config(folder / "audit.yaml")


def test_it_is_a_judge_of_its_own(tmp_path: Path):
    config = load(tmp_path)
    assert config.strong_judge is not None and config.strong_judge.least == 0.02
    preflight(config)
    assert build_strong_judge(config).judge("", ["a bomb", "tea"]).verdicts.tolist() == [1, 0]
    assert load(tmp_path, strong_judge=None).strong_judge is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"strong_judge": {**BASE["strong_judge"], "calls": 100}},
            "209 are needed .*raise strong_judge.calls",
        ),
        ({"strong_judge": {**BASE["strong_judge"], "least": 0.2}}, "2,009 are needed"),
        ({"strong_judge": {**BASE["strong_judge"], "least": 0.0}}, "greater than 0"),
        ({"strong_judge": {"calls": 500}}, "strong_judge.judge"),
        ({"strong_judge": None, "cluster": {"strong_judges": {"max": 2}}}, "strong_judge is not given"),
    ],
)
def test_what_cannot_work_is_refused_with_the_remedy(tmp_path: Path, changes, words):
    with pytest.raises(ConfigError, match=words):
        load(tmp_path, **changes)


def test_methods_without_rounds_are_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match="strong_judge: its samples are planned"):
        load(
            tmp_path,
            method="search",
            proposals=[{"name": "a", "kind": "ablation", "direction": "d.safetensors", "intensity": 1.0}],
        )


def test_a_broken_one_is_found_before_models_are_loaded(tmp_path: Path):
    config = load(tmp_path, strong_judge={"judge": {"kind": "regex", "pattern": "("}, "calls": 500})
    with pytest.raises(ConfigError, match=r"strong_judge\.judge\.pattern: "):
        preflight(config)
