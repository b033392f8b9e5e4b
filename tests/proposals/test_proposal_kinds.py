"""All proposal kinds and decoding options through one suite of checks, on a tiny random Llama."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from check_proposal import check_proposal, responses
from tinymodel import EOS, make_tiny_adapter, make_tiny_model, prompt
from vectorkit import write_gguf, write_pt

from tailrisk.config import Config
from tailrisk.errors import ConfigError
from tailrisk.models.directions import Direction, save_direction
from tailrisk.models.laws import LawSet
from tailrisk.proposals import build_laws

CASES = {
    "target": None,
    "system_prompt": {"kind": "system_prompt", "text": "w3 w4"},
    "lora_off": {"kind": "lora", "adapter": "target", "scale": 0.0},
    "lora_reversed": {"kind": "lora", "adapter": "target", "scale": -0.5},
    "lora_other": {"kind": "lora", "adapter": "other", "scale": 1.0},
    "ablation": {"kind": "ablation", "direction": "direction.safetensors", "intensity": 1.0},
    "ablation_mixed": {
        "kind": "ablation",
        "direction": "direction.safetensors",
        "intensity": 0.7,
        "mix": 0.4,
        "switch": 2,
    },
    "ablation_of_writes": {
        "kind": "ablation",
        "direction": "direction.safetensors",
        "intensity": 0.6,
        "form": "writes",
    },
    "vector": {"kind": "vector", "vector": "direction.safetensors", "layers": [1], "coefficient": 2.0},
    "vector_prompt": {"kind": "vector", "vector": "layers.gguf", "coefficient": -0.7, "tokens": "prompt"},
    "vector_response": {
        "kind": "vector",
        "vector": "table.pt",
        "layers": [-1, 0],
        "tokens": "response",
        "mix": 0.6,
        "switch": 2,
    },
    "vector_and_more": {
        "kind": "vector",
        "vector": "table.pt",
        "coefficient": 0.5,
        "also": [
            {"kind": "system_prompt", "text": "w4"},
            {"kind": "ablation", "direction": "direction.safetensors", "intensity": 0.3, "form": "writes"},
            {"kind": "lora", "adapter": "target", "scale": 0.5},
            {"kind": "lora", "adapter": "other", "scale": 0.4},
        ],
    },
    "prefix": {"kind": "prefix", "text": "w1"},
    "prefix_long": {"kind": "prefix", "text": "w1 w2"},
    "avoid": {"kind": "prefix", "avoid": ["w0 w3", "w2"]},
    "prefix_of_another": {"kind": "prefix", "text": "w1", "also": [{"kind": "system_prompt", "text": "w4"}]},
    "avoid_and_more": {
        "kind": "prefix",
        "avoid": ["w0 w3", "w2"],
        "also": [
            {"kind": "system_prompt", "text": "w4"},
            {"kind": "lora", "adapter": "other", "scale": 0.4, "added": True},
        ],
    },
    "checkpoint": {"kind": "checkpoint", "model": "sibling"},
    "mixed": {"kind": "checkpoint", "model": "sibling", "mix": 0.3},
    "mixed_then_target": {"kind": "system_prompt", "text": "w4", "mix": 0.6, "switch": 1},
    "switch": {"kind": "lora", "adapter": "other", "switch": 1},
    "switch_late": {"kind": "checkpoint", "model": "sibling", "switch": 2},
    "switch_never": {"kind": "checkpoint", "model": "sibling", "mix": 0.5, "switch": 99},
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("proposals")
    make_tiny_model(base / "model", vocab=8, spread=0.35)
    make_tiny_model(base / "sibling", vocab=8, spread=0.35, seed=3)
    make_tiny_model(base / "wider", vocab=9)
    make_tiny_adapter(base / "own", base / "model", seed=1)
    make_tiny_adapter(base / "other", base / "model", seed=2)
    vector = torch.randn(16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    save_direction(base / "direction.safetensors", Direction(vector / vector.norm(), layer=1, model="x"))
    rows = torch.randn(2, 16, generator=torch.Generator().manual_seed(1))
    write_pt(base / "table.pt", rows)
    write_pt(base / "single.pt", rows[0])
    write_gguf(base / "layers.gguf", {"direction.0": rows[1], "direction.1": rows[0]})
    return base


def build(base: Path, proposals: list[dict], dtype: str = "float32", **sampling: object) -> LawSet:
    config = Config.model_validate(
        {
            "target": {
                "model": "model",
                "adapter": "own",
                "dtype": dtype,
                "device": "cpu",
                "sampling": {"max_new_tokens": 3, **sampling},
            },
            "prompts": {"path": "none.jsonl"},
            "judge": {"kind": "refusal"},
            "proposals": proposals,
        }
    )
    return build_laws(config.at(base))


@pytest.mark.parametrize("name", CASES)
def test_kind(base: Path, name: str) -> None:
    case = CASES[name]
    laws = build(base, [] if case is None else [{"name": name, **case}])
    check_proposal(laws, len(laws.names) - 1, prompt("w0 w1 w2"), slack=1e-5)


@pytest.mark.parametrize(
    "name",
    [
        "avoid",
        "avoid_and_more",
        "prefix",
        "mixed",
        "switch",
        "vector_prompt",
        "vector_response",
        "vector_and_more",
    ],
)
def test_kind_under_a_temperature_in_float64(base: Path, name: str) -> None:
    laws = build(base, [{"name": name, **CASES[name]}], dtype="float64", temperature=0.7)
    check_proposal(laws, 1, prompt("w0 w1 w2"), slack=1e-10)


def test_truncated_targets_are_renormalised(base: Path) -> None:
    laws = build(base, [{"name": "sibling", **CASES["checkpoint"]}], top_k=3, top_p=0.9)
    everything = list(responses(8, 3, (EOS,)))
    p = np.exp(laws.log_prob(prompt(), everything))
    assert p.sum(0) == pytest.approx([1.0, 1.0], abs=1e-6)
    assert (p[:, 0] == 0).sum() > 300
    drawn = laws.sample(prompt(), 1, 100, 3)
    assert np.isneginf(laws.log_prob(prompt(), drawn.tokens)[:, 0]).any()


@pytest.mark.parametrize(
    "neutral",
    [
        {"kind": "lora", "adapter": "target", "scale": 1.0},
        {"kind": "ablation", "direction": "direction.safetensors", "intensity": 0.0},
        {"kind": "ablation", "direction": "direction.safetensors", "intensity": 0.0, "form": "writes"},
        {"kind": "vector", "vector": "table.pt", "coefficient": 0.0},
        {"kind": "vector", "vector": "table.pt", "coefficient": 0.0, "tokens": "response"},
    ],
)
def test_neutral_proposals_are_exactly_the_target(base: Path, neutral: dict) -> None:
    laws = build(base, [{"name": "same", **neutral}])
    drawn, same = (laws.sample(prompt(), k, 50, 7) for k in (0, 1))
    assert all(np.array_equal(a, b) for a, b in zip(drawn.tokens, same.tokens, strict=True))
    log_q = laws.log_prob(prompt(), drawn.tokens)
    assert np.array_equal(log_q[:, 0], log_q[:, 1])


def test_adapter_off_is_exactly_the_base_model(base: Path) -> None:
    laws = build(
        base, [{"name": "off", **CASES["lora_off"]}, {"name": "base", "kind": "checkpoint", "model": "model"}]
    )
    drawn = laws.sample(prompt(), 1, 50, 7)
    log_q = laws.log_prob(prompt(), drawn.tokens)
    assert np.array_equal(log_q[:, 1], log_q[:, 2])
    assert not np.allclose(log_q[:, 0], log_q[:, 1])


def test_prefix_is_the_target_divided_by_the_openings_probability(base: Path) -> None:
    laws = build(base, [{"name": "p", **CASES["prefix_long"]}, {"name": "a", **CASES["avoid"]}])
    everything = list(responses(8, 3, (EOS,)))
    log_q = laws.log_prob(prompt(), everything)
    opening, avoided = laws.laws[1].opening, laws.laws[2].avoided
    assert sorted(map(len, avoided)) == [1, 2]
    starts = np.array([tuple(y[:2].tolist()) == opening for y in everything])
    allowed = np.array([not any(tuple(y[: len(o)].tolist()) == o for o in avoided) for y in everything])
    for column, inside in ((1, starts), (2, allowed)):
        p = np.exp(log_q[:, 0])
        want = np.log(p[inside] / p[inside].sum())
        assert np.allclose(log_q[inside, column], want, atol=1e-5)
        assert np.isneginf(log_q[~inside, column]).all()


def test_prefix_of_a_changed_law_is_that_law_divided(base: Path) -> None:
    cases = CASES["prefix_of_another"], CASES["avoid_and_more"]
    changed = [{**case["also"][0], "also": case["also"][1:]} for case in cases]
    laws = build(base, [{"name": f"p{i}", **case} for i, case in enumerate((*cases, *changed))])
    everything = list(responses(8, 3, (EOS,)))
    log_q = laws.log_prob(prompt(), everything)
    for column, whole in ((1, 3), (2, 4)):
        inside = np.isfinite(log_q[:, column])
        assert 0 < inside.sum() < len(everything)
        q = np.exp(log_q[:, whole])
        assert np.allclose(log_q[inside, column], np.log(q[inside] / q[inside].sum()), atol=1e-5)
    assert not np.allclose(log_q[:, 0], log_q[:, 4], atol=0.01)


def test_fingerprints_tell_laws_apart_and_are_stable(base: Path) -> None:
    proposals = [{"name": name, **case} for name, case in CASES.items() if case is not None]
    one, two = build(base, proposals), build(base, proposals)
    assert one.fingerprints == two.fingerprints
    assert len(set(one.fingerprints)) == len(CASES)
    for changed in (
        build(base, proposals, dtype="float64"),
        build(base, proposals, temperature=0.9),
        build(base, proposals, stop_token_ids=[2, 3]),
    ):
        assert not set(changed.fingerprints) & set(one.fingerprints)


def test_corrected_is_for_half_precision(base: Path) -> None:
    assert [build(base, [], dtype=d).corrected for d in ("float32", "float64", "bfloat16")] == [
        False,
        False,
        True,
    ]


def test_texts_leave_special_tokens_out(base: Path) -> None:
    laws = build(base, [])
    assert laws.texts([np.array([3, 4, EOS], dtype=np.int32)]) == ["w0 w1"]


@pytest.mark.parametrize(
    ("proposal", "message"),
    [
        ({"kind": "prefix", "text": "w1", "mix": 0.5}, "neither 'mix' nor 'switch'"),
        ({"kind": "prefix", "text": "w1", "switch": 2}, "neither 'mix' nor 'switch'"),
        ({"kind": "prefix", "text": "   "}, "gives no tokens"),
        ({"kind": "prefix", "text": "w1 w2 w3"}, "an opening has 3 tokens, max_new_tokens is 3"),
        ({"kind": "prefix", "text": "w1 <eos>"}, "holds the stop token 2"),
        ({"kind": "checkpoint", "model": "wider"}, "has 9 tokens, the target 8"),
        ({"kind": "lora", "adapter": "nowhere"}, "no such folder"),
        ({"kind": "ablation", "direction": "nowhere.safetensors"}, "no such file"),
        ({"kind": "ablation", "direction": "table.pt"}, "holds 2 vectors where one is wanted"),
        ({"kind": "vector", "vector": "table.pt", "layers": [2]}, "layer 2 is out of range"),
        ({"kind": "vector", "vector": "single.pt"}, "'layers' must say where"),
    ],
)
def test_impossible_proposals_are_refused(base: Path, proposal: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(base, [{"name": "bad", **proposal}])


def test_scaling_an_adapter_that_is_not_there(base: Path) -> None:
    config = Config.model_validate(
        {
            "target": {"model": "model", "dtype": "float32"},
            "prompts": {"path": "none.jsonl"},
            "judge": {"kind": "refusal"},
            "proposals": [{"name": "off", **CASES["lora_off"]}],
        }
    )
    with pytest.raises(ConfigError, match=r"target\.adapter is not set"):
        build_laws(config.at(base))
