"""Names to models: what is accepted, what is refused, and that a loaded model is exactly the checkpoint."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from tinymodel import make_tiny_adapter, make_tiny_model

from tailrisk.errors import ConfigError, ModelError
from tailrisk.models.loading import (
    load_generation_config,
    load_model,
    load_tokenizer,
    model_digest,
    quiet_transformers,
    resolve_model,
)


def test_a_folder_is_relative_to_the_base_and_loads_exactly(tiny_model: Path) -> None:
    from safetensors.torch import load_file

    ref = resolve_model("model", tiny_model.parent)
    model = load_model(ref, "float32", "cpu")
    stored = load_file(tiny_model / "model.safetensors")
    loaded = model.state_dict()
    assert set(stored) == set(loaded)
    assert all(torch.equal(stored[k], loaded[k]) for k in stored)
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_the_dtype_is_the_one_asked_for(tiny_model: Path, dtype: str) -> None:
    model = load_model(resolve_model(str(tiny_model), Path("/")), dtype, "auto")
    assert {p.dtype for p in model.parameters()} == {getattr(torch, dtype)}


@pytest.mark.parametrize(
    "name",
    [
        "",
        "  ",
        "../../etc",
        "/no/such/folder",
        "a/b/c",
        "a b",
        "org../x",
        "-x/y",
        "x\0y",
        "~no-such-user/x",
        "a--b/c",
    ],
)
def test_a_name_that_is_neither_folder_nor_hub_id_is_a_config_error(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        resolve_model(name, tmp_path)


def test_hub_ids_are_recognised_without_looking_them_up(tmp_path: Path) -> None:
    assert resolve_model("org/Some-model_1.5", tmp_path).source == "hub"
    assert resolve_model("smollm2", tmp_path).source == "embedded"


def test_a_hub_id_that_cannot_be_fetched_says_what_to_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    def offline(*args: object, **kwargs: object) -> str:
        raise huggingface_hub.errors.LocalEntryNotFoundError("no connection")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(ModelError, match=r"HF_HUB_OFFLINE"):
        load_tokenizer(resolve_model("org/none", tmp_path))


def test_an_adapter_named_as_a_model_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    make_tiny_adapter(tmp_path / "a", tiny_model)
    with pytest.raises(ModelError, match="PEFT adapter"):
        resolve_model("a", tmp_path)


def test_a_model_folder_with_an_adapter_inside_is_not_silently_changed(
    tiny_model: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "m"
    shutil.copytree(tiny_model, folder)
    make_tiny_adapter(tmp_path / "a", tiny_model)
    for file in (tmp_path / "a").iterdir():
        shutil.copy(file, folder)
    with pytest.raises(ModelError, match="PEFT adapter"):
        load_model(resolve_model("m", tmp_path), "float32", "cpu")


def test_a_checkpoint_with_lost_weights_is_refused_not_filled_up(tiny_model: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "m"
    shutil.copytree(tiny_model, folder)
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lack 1 tensors.*up_proj"):
        load_model(resolve_model("m", tmp_path), "float32", "cpu")


def test_weights_of_other_shapes_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    shutil.copytree(tiny_model, folder)
    config = json.loads((folder / "config.json").read_text())
    config["intermediate_size"] += 8
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"'m'"):
        load_model(resolve_model("m", tmp_path), "float32", "cpu")


@pytest.mark.parametrize("text", ["", "[1, 2", "[]", '{"model_type": "no-such-type"}'])
def test_a_damaged_config_is_a_model_error(tiny_model: Path, tmp_path: Path, text: str) -> None:
    folder = tmp_path / "m"
    shutil.copytree(tiny_model, folder)
    (folder / "config.json").write_text(text)
    with pytest.raises(ModelError, match=r"'m'"):
        load_model(resolve_model("m", tmp_path), "float32", "cpu")


def test_the_digest_follows_content_and_nothing_else(tiny_model: Path, tmp_path: Path) -> None:
    digest = model_digest(resolve_model(str(tiny_model), Path("/")))
    copy = tmp_path / "elsewhere"
    shutil.copytree(tiny_model, copy)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"transformers_version": "0"}))
    assert model_digest(resolve_model("elsewhere", tmp_path)) == digest
    (copy / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 0.5}))
    assert model_digest(resolve_model("elsewhere", tmp_path)) != digest
    other = make_tiny_model(tmp_path / "other", seed=1)
    assert model_digest(resolve_model(str(other), Path("/"))) != digest


def test_the_digest_is_taken_again_after_a_change_in_place(tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    shutil.copytree(tiny_model, folder)
    ref = resolve_model("m", tmp_path)
    before = model_digest(ref)
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "model.safetensors").write_bytes(bytes(data))
    assert model_digest(ref) != before


def test_stop_tokens_come_from_the_config_where_there_is_no_generation_config(
    tiny_model: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "m"
    shutil.copytree(tiny_model, folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    generation = load_generation_config(resolve_model("m", tmp_path))
    assert generation is not None
    assert generation.eos_token_id == 2


def test_the_librarys_own_logging_comes_back_afterwards() -> None:
    from transformers.utils import logging

    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    with quiet_transformers():
        assert not logging.is_progress_bar_enabled()
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before


def test_without_its_package_the_embedded_model_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match="pip install"):
        resolve_model("smollm2", Path()).folder()


@pytest.mark.embedded
def test_the_embedded_model_is_dense_bfloat16_and_renders_chats(tmp_path: Path) -> None:
    from safetensors import safe_open

    ref = resolve_model("smollm2", tmp_path)
    with safe_open(ref.folder() / "model.safetensors", framework="pt") as file:
        kinds = {file.get_slice(k).get_dtype() for k in file.keys()}  # noqa: SIM118
    assert kinds == {"BF16"}
    assert load_tokenizer(ref).get_chat_template()
