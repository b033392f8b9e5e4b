"""From a name to a model: the embedded model, a local Hugging Face folder, or a hub id.

Promises: nothing of a model repository is ever executed (``trust_remote_code`` is off and repositories that
need it are refused without a question on stdin); weights come from safetensors only; a checkpoint whose
weights do not cover the architecture is refused instead of being filled with random numbers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from tailrisk.errors import ConfigError, ModelError
from tailrisk.models.digests import config_digest, file_digest, text_digest
from tailrisk.models.embedded import EMBEDDED, embedded_folder
from tailrisk.models.sharding import distributed_config

if TYPE_CHECKING:
    import torch
    from transformers import GenerationConfig, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

_HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}(/[A-Za-z0-9][A-Za-z0-9._-]{0,95})?")
_SMALL_FILES = ["*.json", "*.jinja", "*.model", "*.txt", "*.tiktoken"]
MODEL_FILES = [*_SMALL_FILES, "*.safetensors"]
"""What is read of a model's repository."""


class ModelRef(NamedTuple):
    """A model that was named and found plausible; ``location`` is a folder (local), a hub id, or empty."""

    name: str
    source: Literal["embedded", "local", "hub"]
    location: str

    def folder(self, weights: bool = False) -> Path:
        """The model's folder on this machine. A hub id is fetched into the Hugging Face cache (or taken from
        it), without the weights unless asked for them. Errors: ModelError."""
        if self.source == "embedded":
            return embedded_folder()
        if self.source == "local":
            return Path(self.location)
        return _hub_folder(self.location, weights)


def resolve_model(name: str, base: Path) -> ModelRef:
    """What ``name`` stands for: ``smollm2``, a folder (relative to ``base``), or a hub id; nothing is loaded.

    An existing folder wins over a hub id of the same spelling. Errors: ConfigError for a name that is
    neither, ModelError for a folder without a model.
    """
    if name == EMBEDDED:
        return ModelRef(name, "embedded", "")
    if not name.strip() or "\0" in name:
        raise ConfigError(
            f"model name {name!r}: give 'smollm2', a model folder, or a hub id such as 'org/name'"
        )
    try:
        folder = (base / Path(name).expanduser()).resolve()
    except (RuntimeError, OSError):
        folder = base / name
    if folder.is_dir():
        _check_folder(folder, name)
        return ModelRef(name, "local", str(folder))
    if not _HUB_ID.fullmatch(name) or ".." in name or "--" in name:
        raise ConfigError(
            f"model {name!r}: no such folder ({folder}), and not a hub id of the form 'org/name' "
            "(letters, digits, '.', '_', '-'); 'smollm2' is the embedded model"
        )
    return ModelRef(name, "hub", name)


def load_config(ref: ModelRef) -> PretrainedConfig:
    """The architecture. Errors: ModelError, also where the repository wants to run code of its own."""
    from transformers import AutoConfig

    folder = ref.folder()
    _check_folder(folder, ref.name)
    with _model_errors(ref, "its config.json"):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    return config


def load_tokenizer(ref: ModelRef) -> PreTrainedTokenizerBase:
    """The tokenizer with its chat template. Errors: ModelError."""
    from transformers import AutoTokenizer

    folder = ref.folder()
    _check_folder(folder, ref.name)
    with _model_errors(ref, "its tokenizer"):
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)


def load_generation_config(ref: ModelRef) -> GenerationConfig | None:
    """What the repository says of stop tokens; None where it says nothing. Errors: ModelError."""
    from transformers import GenerationConfig

    folder = ref.folder()
    if not (folder / "generation_config.json").is_file():
        config = load_config(ref)
        eos = getattr(config, "eos_token_id", None)
        return None if eos is None else GenerationConfig(eos_token_id=eos)
    with _model_errors(ref, "its generation_config.json"):
        return GenerationConfig.from_pretrained(folder, local_files_only=True)


def load_model(ref: ModelRef, dtype: str | torch.dtype, device: str = "auto") -> PreTrainedModel:
    """The model in ``dtype`` on ``device`` (``auto``: cuda where there is one), frozen and in eval mode; this
    process's part of it where the process has joined a group (``models.sharding``).

    Errors: ModelError for anything that keeps it from being exactly the checkpoint.
    """
    from transformers import AutoModelForCausalLM

    return _load(ref, AutoModelForCausalLM, dtype, device)


def load_classifier(ref: ModelRef, dtype: str | torch.dtype, device: str = "auto") -> PreTrainedModel:
    """The same for a model with a head for classes of whole texts."""
    from transformers import AutoModelForSequenceClassification

    return _load(ref, AutoModelForSequenceClassification, dtype, device)


def _load(ref: ModelRef, kind: Any, dtype: str | torch.dtype, device: str) -> PreTrainedModel:
    import torch

    from tailrisk.models.widened import widen

    folder = ref.folder(weights=True)
    _check_folder(folder, ref.name)
    weight_files(folder, ref.name)
    config, shards = load_config(ref), distributed_config()
    with _model_errors(ref, "its weights"):
        loaded: Any = kind.from_pretrained(
            folder,
            config=config,
            dtype=getattr(torch, dtype) if isinstance(dtype, str) else dtype,
            attn_implementation="sdpa",
            use_safetensors=True,
            weights_only=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
            distributed_config=shards,
        )
        model, info = loaded
        _check_complete(ref, info)
        model = model.to(pick_device(device)).eval()
        if shards is None:
            widen(model)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return model


def adapter_folder(name: str, base: Path) -> Path:
    """The folder of a PEFT adapter: ``name`` is one (relative to ``base``), or a hub id whose files are fetched into
    the Hugging Face cache. Errors: ConfigError, ModelError."""
    try:
        folder = (base / Path(name).expanduser()).resolve()
    except (RuntimeError, OSError):
        folder = base / name
    if folder.is_dir():
        return folder
    if not _HUB_ID.fullmatch(name) or "/" not in name or ".." in name or "--" in name:
        raise ConfigError(
            f"adapter {name!r}: no such folder ({folder}), and not a hub id of the form 'org/name'"
        )
    return _hub_folder(name, True)


def pick_device(device: str) -> str:
    """``auto`` as ``cuda`` or ``cpu``; anything else as it is."""
    import torch

    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"


def check_device(device: str) -> None:
    """Errors: ConfigError where it is no name of a device."""
    import torch

    if device == "auto":
        return
    try:
        torch.device(device)
    except RuntimeError:
        raise ConfigError(f"{device!r} is no device (auto, cpu, cuda, cuda:0)") from None


def model_digest(ref: ModelRef) -> str:
    """sha256 over the weight files and the architecture; the same wherever the model lies. ModelError."""
    folder = ref.folder(weights=True)
    parts = [config_digest(folder / "config.json")]
    for path in weight_files(folder, ref.name):
        parts += [path.name, file_digest(path)]
    return text_digest(*parts)


def weight_files(folder: Path, name: str) -> list[Path]:
    """The safetensors files that make up the model, sorted by name. Errors: ModelError."""
    index = folder / "model.safetensors.index.json"
    if (single := folder / "model.safetensors").is_file():
        return [single]
    if index.is_file():
        try:
            names = sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
            raise ModelError(f"model {name!r}: {index} is damaged ({error})") from error
        files = [folder / str(n) for n in names]
        lost = [f.name for f in files if f.parent != folder or not f.is_file()]
        if not files or lost:
            raise ModelError(
                f"model {name!r}: {folder} lacks the weight files {', '.join(lost) or 'of its index'}"
            )
        return files
    pickles = sorted(f.name for f in folder.iterdir() if f.suffix in (".bin", ".pt", ".pth", ".pkl"))
    if pickles:
        raise ModelError(
            f"model {name!r}: {folder} has its weights as pickle ({pickles[0]}), which can run code when "
            "loaded; convert it to safetensors (save_pretrained) and name that folder"
        )
    raise ModelError(f"model {name!r}: {folder} has no model.safetensors")


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Progress bars and advice of the library off; the way they were set comes back afterwards."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


@contextmanager
def _model_errors(ref: ModelRef, what: str) -> Iterator[None]:
    """Anything the library raises while it reads a repository becomes one ModelError."""
    try:
        with quiet_transformers():
            yield
    except (ModelError, KeyboardInterrupt):
        raise
    except Exception as error:
        text = " ".join(str(error).split())
        if "trust_remote_code" in text or "custom code" in text:
            raise ModelError(_remote_code_message(ref.name)) from None
        raise ModelError(
            f"model {ref.name!r}: cannot load {what} ({type(error).__name__}: {text[:400]})"
        ) from error


def _check_folder(folder: Path, name: str) -> None:
    """Refuses folders that the library would follow elsewhere: adapters, and code to be run."""
    if (folder / "adapter_config.json").is_file():
        raise ModelError(
            f"model {name!r}: {folder} is a PEFT adapter (adapter_config.json); name the base model here and "
            "the adapter under 'adapter'"
        )
    if not (folder / "config.json").is_file():
        raise ModelError(f"model {name!r}: {folder} has no config.json; give a Hugging Face model folder")
    for file, unknown in (("config.json", _unknown_type), ("tokenizer_config.json", _code_only_tokenizer)):
        path = folder / file
        if not path.is_file():
            continue
        try:
            data = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise ModelError(f"model {name!r}: {path} cannot be read as JSON ({error})") from error
        if not isinstance(data, dict):
            raise ModelError(f"model {name!r}: {path} is not a JSON object")
        if data.get("auto_map") and unknown(data):
            raise ModelError(_remote_code_message(name))


def _unknown_type(config: dict[str, Any]) -> bool:
    from transformers import CONFIG_MAPPING

    return config.get("model_type") not in CONFIG_MAPPING


def _code_only_tokenizer(config: dict[str, Any]) -> bool:
    import transformers

    name = str(config.get("tokenizer_class") or "")
    return not hasattr(transformers, name)


def _remote_code_message(name: str) -> str:
    return (
        f"model {name!r}: its repository needs code of its own to be run (auto_map), which tailrisk refuses; "
        "use a model whose architecture transformers knows"
    )


def _check_complete(ref: ModelRef, info: dict[str, Any]) -> None:
    for key, what in (("missing_keys", "lack"), ("mismatched_keys", "do not fit")):
        if found := sorted(str(k) for k in info.get(key) or ()):
            raise ModelError(
                f"model {ref.name!r}: its weights {what} {len(found)} tensors of the architecture in its "
                f"config.json, such as {found[0]}; the checkpoint is damaged or of another kind"
            )


def _hub_folder(name: str, weights: bool) -> Path:
    from huggingface_hub import snapshot_download

    patterns = MODEL_FILES if weights else _SMALL_FILES
    try:
        return Path(snapshot_download(name, allow_patterns=patterns))
    except Exception as error:
        first = (str(error).strip().splitlines() or [""])[0]
        raise ModelError(
            f"model {name!r}: no such folder here, and the hub gave nothing ({type(error).__name__}: "
            f"{first[:300]}); check the name, the network, HF_HUB_OFFLINE and HF_TOKEN"
        ) from error
