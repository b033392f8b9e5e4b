"""Adapters switched on and off: the same numbers as peft, and no trace afterwards."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tinymodel import make_tiny_adapter, make_tiny_model
from transformers import AutoModelForCausalLM, PreTrainedModel

from tailrisk.errors import ConfigError, ModelError, TailriskError
from tailrisk.models.interventions import active, all_applied
from tailrisk.models.interventions.adapter import adapter_digest, load_adapter
from tailrisk.models.interventions.lora import Lora, MergeCache
from tailrisk.models.loading import load_model, resolve_model

IDS = torch.tensor([[1, 6, 9, 12, 7], [1, 30, 2, 2, 8]])


def load(folder: Path, dtype: str = "float32") -> PreTrainedModel:
    return load_model(resolve_model(str(folder), Path("/")), dtype, "cpu")


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        return model(IDS).logits.clone()


def bits(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in model.state_dict().items()}


def same_bits(model: PreTrainedModel, before: dict[str, torch.Tensor]) -> bool:
    after = model.state_dict()
    return set(after) == set(before) and all(torch.equal(after[k], before[k]) for k in before)


@pytest.mark.parametrize("scale", [1.0, 0.5, -2.0])
def test_the_logits_are_pefts(tiny_model: Path, tiny_adapter: Path, scale: float) -> None:
    from peft import PeftModel

    model = load(tiny_model, "float64")
    plain = logits(model)
    with Lora(load_adapter(tiny_adapter, model.config), scale).applied(model):
        ours = logits(model)
    wrapped = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float64), tiny_adapter
    ).eval()
    for module in wrapped.modules():
        if hasattr(module, "scale_layer"):
            module.scale_layer(scale)
    assert (ours - logits(wrapped)).abs().max() < 1e-5
    assert (ours - plain).abs().max() > 0.1


def test_rank_and_alpha_patterns_and_rslora_scale_as_in_peft(tiny_model: Path, tmp_path: Path) -> None:
    from peft import PeftModel

    make_tiny_adapter(
        tmp_path / "a",
        tiny_model,
        use_rslora=True,
        rank_pattern={"q_proj": 3},
        alpha_pattern={"down_proj": 7},
    )
    model = load(tiny_model)
    with Lora(load_adapter(tmp_path / "a", model.config)).applied(model):
        ours = logits(model)
    wrapped = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(tiny_model), tmp_path / "a"
    ).eval()
    assert (ours - logits(wrapped)).abs().max() < 1e-3


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16"])
def test_the_model_is_restored_bit_for_bit_also_after_an_error(
    tiny_model: Path, tiny_adapter: Path, dtype: str
) -> None:
    model = load(tiny_model, dtype)
    before, plain = bits(model), logits(model)
    objects = [id(p) for p in model.parameters()]
    lora = Lora(load_adapter(tiny_adapter, model.config))
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), lora.applied(model):
            assert not same_bits(model, before)
            raise ZeroDivisionError
    assert same_bits(model, before)
    assert [id(p) for p in model.parameters()] == objects
    assert torch.equal(logits(model), plain)


def test_merging_rounds_once_from_float32(tiny_model: Path, tiny_adapter: Path) -> None:
    model = load(tiny_model, "bfloat16")
    adapter = load_adapter(tiny_adapter, model.config)
    name = "model.layers.1.mlp.down_proj"
    layer = adapter.layers[name]
    base = model.get_submodule(name).weight.clone()
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    assert a.dtype == torch.float32
    with Lora(adapter, 0.7).applied(model):
        merged = model.get_submodule(name).weight.clone()
    assert torch.equal(merged, (base.float() + 0.7 * ((b @ a) * 2.0)).to(torch.bfloat16))


def test_scale_zero_is_exactly_the_model(tiny_model: Path, tiny_adapter: Path) -> None:
    model = load(tiny_model)
    off = Lora(load_adapter(tiny_adapter, model.config), 0.0)
    objects = [id(p) for p in model.parameters()]
    with off.applied(model):
        assert [id(p) for p in model.parameters()] == objects
    assert off.neutral
    assert active([off]) == ()


def test_adapters_nest_and_come_off_in_order(tiny_model: Path, tiny_adapter: Path, tmp_path: Path) -> None:
    other = make_tiny_adapter(tmp_path / "b", tiny_model, seed=9, target_modules=("q_proj", "lm_head"))
    model = load(tiny_model, "float64")
    cache = MergeCache()
    first = Lora(load_adapter(tiny_adapter, model.config), 1.0, cache)
    second = Lora(load_adapter(other, model.config), 0.5, cache)
    before = bits(model)
    with all_applied(model, [first, second]):
        both = logits(model)
    with second.applied(model), first.applied(model):
        assert torch.allclose(logits(model), both, atol=1e-9)
    with first.applied(model):
        one = logits(model)
        with second.applied(model):
            assert torch.equal(logits(model), both)
        assert torch.equal(logits(model), one)
    assert same_bits(model, before)


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings")
@pytest.mark.parametrize("target", ["lm_head", "embed_tokens"])
def test_tied_embeddings_change_on_the_adapted_side_only(tmp_path: Path, target: str) -> None:
    from peft import PeftModel

    folder = make_tiny_model(tmp_path / "m", tied=True)
    adapter = make_tiny_adapter(tmp_path / "a", folder, target_modules=(target,))
    model = load(folder)
    before = bits(model)
    with Lora(load_adapter(adapter, model.config)).applied(model):
        ours = logits(model)
        changed = model.get_input_embeddings().weight, model.get_output_embeddings().weight
        assert not torch.equal(*changed)
    wrapped = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder), adapter).eval()
    assert (ours - logits(wrapped)).abs().max() < 1e-3
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert same_bits(model, before)


def test_merged_weights_are_kept_up_to_the_limit(tiny_model: Path, tiny_adapter: Path) -> None:
    model = load(tiny_model)
    adapter = load_adapter(tiny_adapter, model.config)
    size = sum(model.get_submodule(n).weight.nbytes for n in adapter.layers)
    cache = MergeCache(2 * size)
    loras = [Lora(adapter, s, cache) for s in (0.5, 1.0, 1.5)]
    name = next(iter(adapter.layers))

    def applied_weight(lora: Lora) -> torch.nn.Parameter:
        with lora.applied(model):
            return model.get_submodule(name).weight

    first = applied_weight(loras[0])
    assert applied_weight(loras[0]) is first
    assert applied_weight(Lora(adapter, 0.5, cache)) is first
    applied_weight(loras[1])
    applied_weight(loras[0])
    applied_weight(loras[2])
    assert cache.bytes == 2 * size
    assert applied_weight(loras[0]) is first, "the one used last stays"
    none = Lora(adapter, 1.0, MergeCache(size - 1))
    one = applied_weight(none)
    assert applied_weight(none) is not one
    assert torch.equal(applied_weight(none), one)


def test_kept_weights_are_not_used_for_another_model(
    tiny_model: Path, tiny_adapter: Path, tmp_path: Path
) -> None:
    cache = MergeCache()
    one, other = load(tiny_model), load(make_tiny_model(tmp_path / "m", seed=5))
    lora = Lora(load_adapter(tiny_adapter, one.config), 1.0, cache)
    with lora.applied(one):
        pass
    plain = logits(other)
    with lora.applied(other):
        changed = logits(other)
    fresh = Lora(lora.adapter)
    with fresh.applied(other):
        assert torch.equal(logits(other), changed)
    assert torch.equal(logits(other), plain)
    assert not torch.equal(changed, plain)


def test_fingerprints_follow_content_and_scale(tiny_model: Path, tiny_adapter: Path, tmp_path: Path) -> None:
    config = load(tiny_model).config
    shutil.copytree(tiny_adapter, tmp_path / "copy")
    make_tiny_adapter(tmp_path / "other", tiny_model, seed=3)
    one, copy, other = (
        load_adapter(p, config) for p in (tiny_adapter, tmp_path / "copy", tmp_path / "other")
    )
    assert Lora(one).fingerprint == Lora(copy).fingerprint
    assert len({Lora(one).fingerprint, Lora(other).fingerprint, Lora(one, 0.5).fingerprint}) == 3
    options = json.loads((tmp_path / "copy" / "adapter_config.json").read_text())
    (tmp_path / "copy" / "adapter_config.json").write_text(json.dumps(options | {"lora_alpha": 5}))
    assert adapter_digest(tmp_path / "copy") != one.digest


def test_weights_that_overflow_are_an_error_and_leave_nothing_behind(
    tiny_model: Path, tmp_path: Path
) -> None:
    adapter = make_tiny_adapter(tmp_path / "a", tiny_model, spread=300.0)
    model = load(tiny_model, "float16")
    before = bits(model)
    with (
        pytest.raises(ModelError, match="non-finite weights"),
        Lora(load_adapter(adapter, model.config), 10.0).applied(model),
    ):
        pass
    assert same_bits(model, before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"bias": "all"}, "bias"),
        ({"peft_type": "IA3"}, "IA3"),
        ({"init_lora_weights": "pissa"}, "pissa"),
        ({"megatron_config": {"a": 1}, "megatron_core": "os"}, "megatron_config"),
    ],
)
def test_adapters_that_are_more_than_lora_are_refused_in_words(
    tiny_model: Path, tiny_adapter: Path, tmp_path: Path, options: dict[str, object], message: str
) -> None:
    folder = tmp_path / "a"
    shutil.copytree(tiny_adapter, folder)
    stored = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(stored | options))
    with pytest.raises(ConfigError, match=message):
        load_adapter(folder, load(tiny_model).config)


def test_an_adapter_for_another_model_names_a_tensor(tiny_adapter: Path, tmp_path: Path) -> None:
    wide = load(make_tiny_model(tmp_path / "wide", hidden=32))
    with pytest.raises(ConfigError, match=r"another model.*lora_A.*more like it"):
        load_adapter(tiny_adapter, wide.config)
    shallow = load(make_tiny_model(tmp_path / "shallow", layers=1))
    with pytest.raises(ConfigError, match=r"no weight model\.layers\.1\."):
        load_adapter(tiny_adapter, shallow.config)


def test_tensors_outside_the_options_are_not_ignored(
    tiny_model: Path, tiny_adapter: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "a"
    shutil.copytree(tiny_adapter, folder)
    stored = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(stored | {"target_modules": ["q_proj"]}))
    with pytest.raises(ModelError, match="do not match its options"):
        load_adapter(folder, load(tiny_model).config)
    (folder / "adapter_config.json").write_text(
        json.dumps(stored | {"target_modules": [*stored["target_modules"], "o_proj"]})
    )
    with pytest.raises(ModelError, match="do not match its options"):
        load_adapter(folder, load(tiny_model).config)


@pytest.mark.parametrize("lost", ["adapter_config.json", "adapter_model.safetensors", None])
def test_missing_files_are_named(
    tiny_model: Path, tiny_adapter: Path, tmp_path: Path, lost: str | None
) -> None:
    folder = tmp_path / "a"
    if lost is not None:
        shutil.copytree(tiny_adapter, folder)
        (folder / lost).unlink()
    with pytest.raises(TailriskError, match=lost or "no such folder"):
        load_adapter(folder, load(tiny_model).config)
