"""The files of examples/training and the direction made from them hang together."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tailrisk.config import PromptsConfig
from tailrisk.models.directions import load_direction
from tailrisk.prompts import prompt_digest, read_prompts

EXAMPLES = Path(__file__).parents[2] / "examples"


def digests(path: Path) -> set[str]:
    return {prompt_digest(p) for p in read_prompts(path, PromptsConfig(path=str(path)))}


def test_no_prompt_of_the_direction_is_audited_or_in_both_sets() -> None:
    harmful, harmless = (digests(EXAMPLES / "training" / f"{n}.jsonl") for n in ("harmful", "harmless"))
    audited = digests(EXAMPLES / "quickstart" / "prompts.jsonl")
    assert (len(harmful), len(harmless), len(audited)) == (64, 208, 26)
    assert not harmful & audited and not harmful & harmless and not harmless & audited


def test_the_committed_direction_is_the_one_that_its_scores_choose() -> None:
    path = EXAMPLES / "paper" / "refusal-direction.safetensors"
    direction, told = load_direction(path), json.loads(path.with_suffix(".json").read_text())
    chosen = told["choice"]["candidate"]
    assert (direction.layer, direction.position) == (chosen["layer"], chosen["position"])
    assert direction.length == pytest.approx(chosen["length"], rel=1e-6)
    assert direction.scores == {
        **{name: chosen[name] for name in ("bypass", "induce", "kl")},
        "target": told["target"]["harmful"],
    }
    passing = [c for c in told["candidates"] if not c["cut_by"]]
    assert chosen["bypass"] == min(c["bypass"] for c in passing)
    assert len(passing) == told["choice"]["passing"]
    assert len(direction.model) == len(direction.adapter) == 64
