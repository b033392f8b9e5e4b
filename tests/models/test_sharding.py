"""Models cut into two processes: the same laws as in one, for every change inside them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from archmodels import HIDDEN, KINDS, VOCABULARY, arch_model
from safetensors.torch import save_file
from shardrank import config_of, drawn
from tinymodel import make_tiny_adapter, make_tiny_model, save_tiny_tokenizer
from transformers import AutoConfig
from tworanks import run_two

from tailrisk.config import Parallel
from tailrisk.errors import ModelError
from tailrisk.models.sharding import PIPELINED, check_parallel

TENSOR, PIPELINE = [2, 1], [1, 2]
QUICK = {
    "tensor": ("tiny", "tied", "qwen2", "gemma3_text", "phi", "phi3", "olmo2"),
    "pipeline": ("tiny", "tied", "gemma3_text"),
}
"""Between them they have what the other types have: biases, norms of heads and of rows, windows, fused projections."""
CASES = [
    pytest.param(way, model, marks=() if model in QUICK[way] else pytest.mark.nightly)
    for way, kinds in (("tensor", KINDS), ("pipeline", PIPELINED))
    for model in ("tiny", "tied", *kinds)
]


@pytest.fixture(scope="module")
def ranks(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which two processes have done the jobs of all tests to come: starting them is what takes long."""
    asked = " ".join(item.name for item in request.session.items)
    folder = tmp_path_factory.mktemp("ranks")
    make_tiny_model(folder / "tiny", heads=4, hidden=HIDDEN, layers=3)
    make_tiny_model(folder / "tied", heads=4, hidden=HIDDEN, layers=3, tied=True)
    touched = ("embed_tokens", "q_proj", "v_proj", "o_proj", "gate_proj", "down_proj")
    make_tiny_adapter(folder / "adapter", folder / "tiny", target_modules=touched)
    generator = torch.Generator().manual_seed(3)
    save_file({"direction": torch.randn(HIDDEN, generator=generator)}, folder / "direction.safetensors")
    for kind in KINDS:
        arch_model(kind, torch.float32).save_pretrained(folder / kind)
        save_tiny_tokenizer(folder / kind, VOCABULARY)
    direction = {"direction": str(folder / "direction.safetensors")}
    ablations = [
        {"name": "ablated", "kind": "ablation", **direction},
        {
            "name": "less",
            "kind": "ablation",
            "form": "writes",
            "intensity": 0.5,
            "mix": 0.5,
            "switch": 3,
            **direction,
        },
    ]
    changed = [
        *ablations,
        {"name": "adapted", "kind": "lora", "adapter": str(folder / "adapter"), "scale": 0.8},
        {"name": "told", "kind": "system_prompt", "text": "w3 w4"},
        {"name": "opened", "kind": "prefix", "text": "w5 w6"},
    ]
    jobs: list[dict[str, Any]] = []
    for way, parallel in (("tensor", TENSOR), ("pipeline", PIPELINE)):
        for model in ("tiny", "tied"):
            jobs.append(
                {"name": f"{way}-{model}", "model": model, "parallel": parallel, "proposals": changed}
            )
        for kind in KINDS if way == "tensor" else PIPELINED:
            jobs.append(
                {"name": f"{way}-{kind}", "model": kind, "parallel": parallel, "proposals": ablations}
            )
        jobs.append(
            {"name": f"{way}-apart", "model": "tiny", "parallel": parallel, "proposals": [], "apart": 1}
        )
    jobs = [job for job in jobs if "apart" in job or f"[{job['name']}]" in asked]
    (folder / "jobs.json").write_text(json.dumps(jobs))
    run_two(Path(__file__).with_name("shardrank.py"), folder)
    return folder


def found(folder: Path, name: str) -> tuple[Any, Any]:
    return tuple(torch.load(folder / f"{name}.{rank}.pt", weights_only=False) for rank in range(2))


@pytest.mark.slow
@pytest.mark.parametrize(("way", "model"), CASES)
def test_ranks_have_the_law_of_one_process(ranks: Path, way: str, model: str):
    first, second = found(ranks, f"{way}-{model}")
    job = next(j for j in json.loads((ranks / "jobs.json").read_text()) if j["name"] == f"{way}-{model}")
    alone = drawn(config_of(ranks / model, job["proposals"]))
    assert len(first) == 1 + len(job["proposals"])
    for law, (one, a, b) in enumerate(zip(alone, first, second, strict=True)):
        assert all(np.array_equal(x, y) for x, y in zip(a[0], b[0], strict=True)), law
        np.testing.assert_array_equal(a[2], b[2])
        same = [np.array_equal(x, y) for x, y in zip(one[0], a[0], strict=True)]
        # A uniform number that falls between the two roundings of a probability is rare, and no error.
        assert np.mean(same) > 0.9, law
        lengths = np.array([len(t) for t in one[0]])[same]
        slack = 2e-5 * lengths if way == "tensor" else 0.0 * lengths
        for mine, theirs in ((one[1][same], a[1][same]), *zip(one[2][same].T, a[2][same].T, strict=True)):
            known = np.isfinite(mine)
            np.testing.assert_array_equal(known, np.isfinite(theirs))
            assert (np.abs(mine[known] - theirs[known]) <= slack[known]).all(), law


@pytest.mark.parametrize("way", ["tensor", "pipeline"])
def test_ranks_that_draw_differently_give_no_number(ranks: Path, way: str):
    for said in found(ranks, f"{way}-apart"):
        assert isinstance(said, str) and "disagree" in said


def llama(**sizes: int) -> Any:
    usual = {
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "intermediate_size": 1536,
        "vocab_size": 49152,
    }
    return AutoConfig.for_model("llama", num_hidden_layers=30, hidden_size=576, **{**usual, **sizes})


def test_what_does_not_divide_is_said_before_anything_is_loaded():
    check_parallel(Parallel(3), llama(), "cluster.models")
    check_parallel(Parallel(1, 30), llama(), "cluster.models")
    with pytest.raises(
        ModelError, match=r"num_attention_heads 9, num_key_value_heads 3; sizes that do: 1, 3$"
    ):
        check_parallel(Parallel(2), llama(), "cluster.models")
    with pytest.raises(ModelError, match=r"num_key_value_heads 2; sizes that do: 1, 2$"):
        check_parallel(Parallel(4), llama(num_attention_heads=8, num_key_value_heads=2), "cluster.models")
    with pytest.raises(ModelError, match="30 layers"):
        check_parallel(Parallel(1, 31), llama(), "cluster.models")
    with pytest.raises(ModelError, match="type phi are not known"):
        check_parallel(Parallel(1, 2), AutoConfig.for_model("phi"), "cluster.models")
    with pytest.raises(ModelError, match="does not know how to cut models of type gpt2"):
        check_parallel(Parallel(2), AutoConfig.for_model("gpt2"), "cluster.models")
