"""The model that a LoRA is fitted in: the base law's own, its changes in place, low-rank factors beside its weights."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from safetensors.torch import save_file

from tailrisk.errors import ConfigError, ModelError
from tailrisk.models.engine import View
from tailrisk.models.interventions import all_applied
from tailrisk.models.interventions.adapter import CONFIG, WEIGHTS
from tailrisk.models.interventions.blocks import blocks_of
from tailrisk.trainingconfig import LoraShape

if TYPE_CHECKING:
    from peft import PeftModel

State = dict[str, torch.Tensor]
"""Factors by peft's names, float32 on the CPU."""


@contextmanager
def trainable(view: View, shape: LoraShape, seed: int, *, recompute: bool = False) -> Iterator[PeftModel]:
    """``view``'s model with fresh factors, the only parameters that learn; it starts as ``view``'s own law.

    ``recompute``: activations are not kept for gradients. Leaving takes the factors out again. Errors: ConfigError for
    modules that are not there.
    """
    modules = list(shape.modules) if shape.modules else linear_modules(view)
    options = LoraConfig(
        r=shape.rank,
        lora_alpha=shape.alpha,  # pyright: ignore[reportArgumentType]
        target_modules=modules,
        lora_dropout=0.0,
        bias="none",
        task_type="CAUSAL_LM",
    )
    with all_applied(view.model, view.interventions), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed % 2**63)
        try:
            model = get_peft_model(view.model, options)  # pyright: ignore[reportArgumentType]
        except ValueError as error:
            text = " ".join(str(error).split())[:300]
            raise ConfigError(
                f"training.shape.modules: peft finds none of {modules} in the model ({text})"
            ) from error
        if recompute:
            # The other kind needs inputs that have gradients, which frozen embeddings do not give.
            view.model.gradient_checkpointing_enable({"use_reentrant": False})
        try:
            yield model  # pyright: ignore[reportReturnType]
        finally:
            if recompute:
                view.model.gradient_checkpointing_disable()
            model.unload()


def linear_modules(view: View) -> list[str]:
    """Last names of all linear layers of the blocks, such as ``q_proj``; the output layer is none of them."""
    names = {
        name.rpartition(".")[2]
        for block in blocks_of(view.model)
        for name, module in block.layer.named_modules()
        if isinstance(module, torch.nn.Linear)
    }
    if not names:
        raise ModelError(
            f"{type(view.model).__name__} has no linear layers in its blocks; name its layers in training.shape.modules"
        )
    return sorted(names)


def factors(model: PeftModel) -> State:
    """A copy of the factors; for a model whose parameters are whole on this process."""
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    return {name: value.detach().to("cpu", torch.float32).clone() for name, value in state.items()}


def save_adapter(folder: Path, model: PeftModel, state: State, base: str, card: Mapping[str, Any]) -> None:
    """A PEFT folder: factors as safetensors, options, and ``card.json``. Errors: ConfigError."""
    options = model.peft_config["default"].to_dict()
    options |= {"base_model_name_or_path": base, "inference_mode": True}
    for key, value in options.items():
        if isinstance(value, set):
            options[key] = sorted(value)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_file({k: v.contiguous() for k, v in state.items()}, folder / WEIGHTS, metadata={"format": "pt"})
        _write(folder / CONFIG, options)
        _write(folder / "card.json", card)
    except OSError as error:
        raise ConfigError(f"adapter {folder} cannot be written ({error.strerror or error})") from error


def _write(path: Path, data: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(data, indent=1, sort_keys=True, allow_nan=False) + "\n", encoding="utf-8")
