"""PEFT LoRA folders: reading, checking against an architecture, loading. Safetensors only.

The factors are loaded by peft's own code onto a skeleton of the model without weights, so the real model is
never wrapped and there is nothing to unwrap. Adapters that do more than add B A * scaling to a weight are
refused: DoRA, saved modules, biases, activated LoRA and the like cannot be merged exactly, and
initialisations that change the base weights (PiSSA, OLoRA, LoftQ, CorDA) would need another base model.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tailrisk.errors import ConfigError, ModelError, TailriskError
from tailrisk.models.digests import file_digest, text_digest

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."
_FACTOR = re.compile(r"(\.lora_(?:embedding_)?[AB])(\.weight)?$")
_PLAIN_INITS = (True, False, None, "gaussian", "eva", "orthogonal")
_REFUSED = (
    "modules_to_save",
    "use_dora",
    "lora_bias",
    "use_qalora",
    "use_bdlora",
    "alora_invocation_tokens",
    "arrow_config",
    "velora_config",
    "monteclora_config",
    "kasa_config",
    "layer_replication",
    "target_parameters",
    "trainable_token_indices",
    "megatron_config",
)


class Adapter(NamedTuple):
    """Low-rank changes of named weights; ``layers`` are peft's LoRA layers (their factors on the CPU).

    ``digest`` hashes the factors and the options that scale them.
    """

    name: str
    digest: str
    layers: Mapping[str, Any]

    def delta(self, module: str, like: torch.Tensor) -> torch.Tensor:
        """The change of one weight at scale 1, in float32 (float64 for float64 models), where ``like`` is."""
        import torch

        layer = self.layers[module]
        dtype = torch.promote_types(like.dtype, torch.float32)
        for factors in (layer.lora_A, layer.lora_B, layer.lora_embedding_A, layer.lora_embedding_B):
            factors.to(device=like.device, dtype=dtype)
        return layer.get_delta_weight("default")


def load_adapter(folder: Path, config: PretrainedConfig) -> Adapter:
    """A LoRA folder for the architecture ``config``. Errors: ConfigError, ModelError."""
    from peft import LoraConfig, get_peft_model
    from peft.tuners.lora import LoraLayer
    from safetensors.torch import load_file

    model = skeleton(config)
    if problems := adapter_problems(folder, model):
        raise problems[0]
    options = _read_options(folder)
    try:
        known = {k: v for k, v in options.items() if k in LoraConfig.__dataclass_fields__}
        lora = LoraConfig(**{**known, "inference_mode": True, "init_lora_weights": False})
        lora.task_type = None
        with warnings.catch_warnings():
            # Its advice on tied embeddings is for merging in place, which does not happen here.
            warnings.simplefilter("ignore")
            wrapped = get_peft_model(model, lora, low_cpu_mem_usage=True)  # pyright: ignore[reportArgumentType]
        state = load_file(folder / WEIGHTS, device="cpu")
        # peft's own loader would move the factors to where the skeleton is, that is, nowhere.
        named = {_FACTOR.sub(r"\1.default\2", key): tensor for key, tensor in state.items()}
        result = wrapped.load_state_dict(named, strict=False, assign=True)
    except Exception as error:
        text = " ".join(str(error).split())[:400]
        raise ModelError(f"adapter {folder}: peft cannot load it ({type(error).__name__}: {text})") from error
    lost = [k for k in result.missing_keys if "lora_" in k] + list(result.unexpected_keys)
    if lost:
        raise ModelError(
            f"adapter {folder}: {len(lost)} of its tensors do not match its options, such as {lost[0]}"
        )
    layers = {
        name.removeprefix(_PREFIX): module
        for name, module in wrapped.named_modules()
        if isinstance(module, LoraLayer)
    }
    return Adapter(folder.name, adapter_digest(folder), layers)


def adapter_digest(folder: Path) -> str:
    """sha256 over the factors and the options that decide how they are scaled. Errors: ModelError."""
    options = _read_options(folder)
    scaling = {
        k: options.get(k)
        for k in ("r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "fan_in_fan_out")
    }
    return text_digest(json.dumps(scaling, sort_keys=True), file_digest(folder / WEIGHTS))


def adapter_problems(folder: Path, model: PreTrainedModel) -> list[TailriskError]:
    """All that keeps the adapter from fitting ``model`` (a skeleton will do); only headers are read."""
    where = f"adapter {folder}"
    try:
        options = _read_options(folder)
        shapes = tensor_shapes(folder / WEIGHTS)
    except (ConfigError, ModelError) as error:
        return [error]
    problems: list[TailriskError] = [ConfigError(f"{where}: {text}") for text in _option_problems(options)]
    weights = {name: tuple(p.shape) for name, p in model.named_parameters(remove_duplicate=False)}
    misfits = _misfits(shapes, weights, bool(options.get("fan_in_fan_out")))
    if misfits:
        base = options.get("base_model_name_or_path") or "unknown"
        more = f", and {len(misfits) - 1} more like it" if len(misfits) > 1 else ""
        problems.append(ConfigError(f"{where}: made for another model (base {base!r}): {misfits[0]}{more}"))
    return problems


def skeleton(config: PretrainedConfig) -> PreTrainedModel:
    """The model's modules without memory for their weights (torch's meta device). Errors: ModelError."""
    import torch
    from transformers import AutoModelForCausalLM

    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except Exception as error:
        raise ModelError(
            f"{type(config).__name__} is not the configuration of a causal language model "
            f"({type(error).__name__}: {str(error)[:300]})"
        ) from error


def tensor_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes in a safetensors file, from its header. Errors: ModelError."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(
            f"{path}: not a safetensors file ({str(error)[:200]}); nothing else is loaded"
        ) from error


def _read_options(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise ConfigError(f"adapter {folder}: no such folder")
    path = folder / CONFIG
    if not path.is_file():
        raise ConfigError(
            f"adapter {folder}: has no {CONFIG}; give a PEFT folder as save_pretrained writes it"
        )
    try:
        options = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"adapter {folder}: {CONFIG} cannot be read as JSON ({error})") from error
    if not isinstance(options, dict):
        raise ModelError(f"adapter {folder}: {CONFIG} is not a JSON object")
    if not (folder / WEIGHTS).is_file():
        pickles = sorted(f.name for f in folder.iterdir() if f.suffix in (".bin", ".pt", ".pth", ".pkl"))
        hint = (
            f"; {pickles[0]} is pickle, which can run code when loaded: save it as safetensors"
            if pickles
            else ""
        )
        raise ModelError(f"adapter {folder}: has no {WEIGHTS}{hint}")
    return options


def _option_problems(options: Mapping[str, Any]) -> list[str]:
    if (kind := options.get("peft_type")) != "LORA":
        return [f"peft_type is {kind!r}; only LORA adapters are supported"]
    problems = [
        f"{key} is set ({options[key]!r}); only plain LoRA, which adds B A * scaling to weights, is supported"
        for key in _REFUSED
        if options.get(key)
    ]
    if (bias := options.get("bias", "none")) != "none":
        problems.append(f"bias is {bias!r}; only 'none' is supported")
    if (init := options.get("init_lora_weights", True)) not in _PLAIN_INITS:
        problems.append(
            f"init_lora_weights is {init!r}, which changes the base weights; convert it to a plain LoRA "
            "(peft: save_pretrained with path_initial_model_for_weight_conversion)"
        )
    return problems


def _misfits(
    shapes: Mapping[str, tuple[int, ...]], weights: Mapping[str, tuple[int, ...]], transposed: bool
) -> list[str]:
    """Tensors that name no weight of the model, or whose outer sizes are not the weight's."""
    found = []
    for name, shape in shapes.items():
        module, _, factor = name.removeprefix(_PREFIX).partition(".lora_")
        weight = weights.get(f"{module}.weight")
        if not factor and name.endswith(("embed_tokens.weight", "lm_head.weight", "base_layer.weight")):
            found.append(f"{name} is a copy of a whole layer; save it with save_embedding_layers=False")
        elif not factor:
            found.append(f"{name} is not a LoRA factor")
        elif weight is None:
            found.append(f"the model has no weight {module}.weight")
        elif len(weight) != 2 or len(shape) != 2:
            found.append(f"{name} has shape {list(shape)}, the model's weight {list(weight)}")
        else:
            rows, columns = weight[::-1] if transposed or factor.startswith("embedding") else weight
            got, want = (shape[1], columns) if "A" in factor.split(".")[0] else (shape[0], rows)
            if got != want:
                found.append(f"{name} has shape {list(shape)}, the model's weight is {list(weight)}")
    return found if found or shapes else ["it holds no tensors"]
