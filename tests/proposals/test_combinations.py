"""Several changes in one law: each does what it does alone, in order, and nothing of the target gets lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from tinymodel import make_tiny_adapter, make_tiny_model, prompt
from vectorkit import write_pt

from tailrisk.config import Config
from tailrisk.configfile import dump_resolved
from tailrisk.models.interventions.ablation import Ablation
from tailrisk.models.interventions.addition import Addition
from tailrisk.models.interventions.lora import Lora
from tailrisk.models.laws import LawSet
from tailrisk.proposals import build_laws
from tailrisk.records import FloatArray

TOLD = {"kind": "system_prompt", "text": "w3 w4"}
HALF = {"kind": "lora", "adapter": "target", "scale": 0.5}
OTHER = {"kind": "lora", "adapter": "other", "scale": 0.4}
ABLATED = {"kind": "ablation", "direction": "direction.pt", "intensity": 0.7}
STEERED = {"kind": "vector", "vector": "direction.pt", "layers": [0], "coefficient": 1.5}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("combined")
    make_tiny_model(base / "model", vocab=8, spread=0.35)
    make_tiny_adapter(base / "own", base / "model", seed=1)
    make_tiny_adapter(base / "other", base / "model", seed=2)
    write_pt(base / "direction.pt", torch.randn(16, generator=torch.Generator().manual_seed(0)))
    return base


def config(base: Path, *proposals: dict[str, Any], **target: Any) -> Config:
    settings = {"dtype": "float64", "device": "cpu", "sampling": {"max_new_tokens": 4}, **target}
    return Config.model_validate(
        {
            "target": {"model": "model", "adapter": "own", **settings},
            "prompts": {"path": "none.jsonl"},
            "judge": {"kind": "refusal"},
            "proposals": [{"name": f"p{i}", **p} for i, p in enumerate(proposals)],
        }
    ).at(base)


def both(first: dict[str, Any], *also: dict[str, Any]) -> dict[str, Any]:
    return {**first, "also": list(also)}


def scores(laws: LawSet) -> FloatArray:
    drawn = laws.sample(prompt(), 0, 20, 1)
    return laws.log_prob(prompt(), drawn.tokens)


def test_every_change_is_in_the_view_in_order(base: Path) -> None:
    laws = build_laws(config(base, both(ABLATED, HALF, TOLD, STEERED, OTHER)))
    view = laws.laws[1].view
    assert [type(i) for i in view.interventions] == [Ablation, Lora, Addition, Lora]
    assert view.system_prompt == "w3 w4"
    assert [i.scale for i in view.interventions if isinstance(i, Lora)] == [0.5, 0.4]


def test_the_targets_adapter_stays_unless_an_adapter_takes_its_place(base: Path) -> None:
    laws = build_laws(config(base, both(TOLD, ABLATED), both(TOLD, OTHER), both(OTHER, TOLD)))
    own = laws.target.view.interventions
    assert laws.laws[1].view.interventions[:1] == own
    for law in laws.laws[2:]:
        assert len(law.view.interventions) == 1 and law.view.interventions[0] is not own[0]
    p = scores(laws)
    assert np.array_equal(p[:, 2], p[:, 3])


def test_neutral_further_changes_change_nothing(base: Path) -> None:
    off = {**ABLATED, "intensity": 0.0}, {**STEERED, "coefficient": 0.0}
    p = scores(build_laws(config(base, STEERED, both(STEERED, *off), both(off[0], STEERED))))
    assert np.array_equal(p[:, 1], p[:, 2]) and np.array_equal(p[:, 1], p[:, 3])
    assert np.abs(p[:, 0] - p[:, 1]).max() > 0.01


def test_a_combination_is_what_its_parts_do_to_the_weights(base: Path, tmp_path: Path) -> None:
    """System prompt and half an adapter, against a checkpoint with the adapter merged in at one half."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from tailrisk.models.interventions.adapter import load_adapter

    model: Any = AutoModelForCausalLM.from_pretrained(base / "model", dtype=torch.float64)
    adapter = load_adapter(base / "own", model.config)
    with torch.no_grad():
        for name in adapter.layers:
            weight = model.get_submodule(name).weight
            weight += 0.5 * adapter.delta(name, weight)
    model.save_pretrained(tmp_path / "merged")
    AutoTokenizer.from_pretrained(base / "model").save_pretrained(tmp_path / "merged")
    merged = {"kind": "checkpoint", "model": str(tmp_path / "merged")}
    p = scores(build_laws(config(base, both(TOLD, HALF), merged, HALF)))
    assert np.allclose(p[:, 2], p[:, 3], atol=1e-9)
    there = config(base, merged, system_prompt="w3 w4")
    q = build_laws(there).log_prob(prompt(), build_laws(config(base)).sample(prompt(), 0, 20, 1).tokens)
    assert np.allclose(p[:, 1], q[:, 1], atol=1e-9)
    assert np.abs(p[:, 1] - p[:, 3]).max() > 0.01


def test_fingerprints_follow_every_part(base: Path) -> None:
    proposals = [
        TOLD,
        both(TOLD, HALF),
        both(TOLD, {**HALF, "scale": 0.4}),
        both(TOLD, ABLATED),
        both(TOLD, {**ABLATED, "form": "writes"}),
        both(TOLD, STEERED),
        both(TOLD, {**STEERED, "tokens": "response"}),
        both(TOLD, ABLATED, STEERED),
    ]
    named = [{**p, "name": "same"} for p in proposals]
    made = [build_laws(config(base, p)).fingerprints[1] for p in named]
    assert len(set(made)) == len(made)


@pytest.mark.parametrize(
    ("proposal", "message"),
    [
        (both(TOLD, TOLD), "a second system prompt"),
        (both(ABLATED, TOLD, TOLD), "a second system prompt"),
        (both(HALF, HALF), "has the adapter 'target' again"),
        (both(TOLD, {"kind": "checkpoint", "model": "x"}), "'checkpoint' .* does not match any"),
        (both(TOLD, {"kind": "prefix", "text": "x"}), "'prefix' .* does not match any"),
        (both(TOLD, {**HALF, "mix": 0.5}), "Extra inputs"),
        (both(TOLD, both(HALF, ABLATED)), "Extra inputs"),
        (both({"kind": "prefix", "text": "x"}, TOLD, TOLD), "a second system prompt"),
        (both({"kind": "checkpoint", "model": "x"}, HALF), "Extra inputs"),
        ({**STEERED, "layers": []}, "at least 1"),
        ({**STEERED, "layers": [1, 1]}, "a layer is given twice"),
        ({**STEERED, "tokens": "some"}, "'all', 'prompt' or 'response'"),
        ({**ABLATED, "form": "weights"}, "'residual' or 'writes'"),
    ],
)
def test_what_makes_no_sense_is_refused(base: Path, proposal: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        config(base, proposal)


def test_the_resolved_configuration_reads_back(base: Path) -> None:
    made = config(base, both(ABLATED, HALF, TOLD), STEERED)
    assert Config.model_validate(dump_resolved(made)).at(base) == made
