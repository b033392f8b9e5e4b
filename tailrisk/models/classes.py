"""A model with a head for classes: from whole texts to the probability of one class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tailrisk.errors import ConfigError, ModelError
from tailrisk.models.interventions.adapter import WEIGHTS, adapter_digest
from tailrisk.models.loading import adapter_folder, load_classifier, load_tokenizer, resolve_model
from tailrisk.records import FloatArray

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

Encoded = dict[str, list[int]]


class Classes:
    """``batch``: texts in one pass at most; ``index``: the class whose probability is asked."""

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, index: int, batch: int
    ) -> None:
        self.tokenizer = tokenizer
        self._model = model
        self._index = index
        self._batch = batch
        self._pad = pad_id(model.config, tokenizer)
        # Some architectures find a text's end by it.
        model.config.pad_token_id = self._pad
        self._room = room(model.config, tokenizer)

    @classmethod
    def load(
        cls,
        model: str,
        adapter: str | None,
        label: int | str,
        base: Path,
        *,
        dtype: str,
        device: str,
        batch: int,
    ) -> Classes:
        """Errors: ConfigError, ModelError."""
        ref = resolve_model(model, base)
        loaded = load_classifier(ref, dtype, device)
        if adapter is not None:
            loaded = with_adapter(loaded, adapter_folder(adapter, base))
        return cls(loaded, load_tokenizer(ref), class_index(loaded.config, label), batch)

    def encoded(self, first: str, second: str | None = None) -> Encoded:
        """One text, or a pair as the model takes it."""
        found: Any = self.tokenizer(first, second, truncation=False, verbose=False)
        return {name: list(found[name]) for name in ("input_ids", "token_type_ids") if name in found}

    def misfit(self, text: Encoded) -> str:
        """Why the model cannot read it; '' where it can."""
        length = len(text["input_ids"])
        if not length:
            return "there is nothing to read"
        if self._room is not None and length > self._room:
            return f"{length} tokens do not fit the model's {self._room} positions"
        return ""

    def probabilities(self, texts: Sequence[Encoded]) -> FloatArray:
        """[n] of the class, NaN where the model's outputs are not finite."""
        found = np.full(len(texts), np.nan)
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]["input_ids"]))
        # An architecture that takes padding for the text's end is misled by a text that holds it.
        alone = [i for i in order if self._pad in texts[i]["input_ids"]]
        together = [i for i in order if i not in set(alone)]
        passes = [[i] for i in alone]
        passes += [together[k : k + self._batch] for k in range(0, len(together), self._batch)]
        for rows in passes:
            found[rows] = self._pass([texts[i] for i in rows])
        return found

    def _pass(self, texts: Sequence[Encoded]) -> FloatArray:
        width = max(len(text["input_ids"]) for text in texts)
        device = self._model.device

        def padded(rows: Sequence[list[int]], filler: int) -> torch.Tensor:
            return torch.tensor([[*row, *[filler] * (width - len(row))] for row in rows], device=device)

        given = {"input_ids": padded([text["input_ids"] for text in texts], self._pad)}
        given["attention_mask"] = padded([[1] * len(text["input_ids"]) for text in texts], 0)
        if "token_type_ids" in texts[0]:
            given["token_type_ids"] = padded([text["token_type_ids"] for text in texts], 0)
        with torch.inference_mode():
            logits = self._model(**given).logits
            wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
            law = torch.sigmoid(wide) if independent(self._model.config) else torch.softmax(wide, -1)
        return law[:, self._index].double().cpu().numpy()


def with_adapter(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """The model with a LoRA folder merged into it, its saved head included. Errors: ConfigError, ModelError."""
    from peft import PeftModel
    from peft.utils import set_peft_model_state_dict
    from safetensors.torch import load_file

    adapter_digest(folder)  # refuses what is no adapter, and weights that are no safetensors
    try:
        wrapped: Any = PeftModel.from_pretrained(model, str(folder), is_trainable=False)
        strange = set_peft_model_state_dict(wrapped, load_file(folder / WEIGHTS)).unexpected_keys
        if not strange:
            merged = wrapped.merge_and_unload().eval()
    except Exception as error:
        text = " ".join(str(error).split())[:400]
        raise ModelError(f"adapter {folder}: peft cannot load it ({type(error).__name__}: {text})") from error
    if strange:
        raise ConfigError(f"adapter {folder}: made for another model: it has no place for {strange[0]}")
    for parameter in merged.parameters():
        parameter.requires_grad_(False)
    return merged


def class_index(config: PretrainedConfig, label: int | str) -> int:
    """The number of a class by its name or its number. Errors: ConfigError that lists the classes."""
    names = {int(number): str(name) for number, name in (config.id2label or {}).items()}
    if config.problem_type == "regression":
        raise ConfigError("the model gives a number, not classes (problem_type: regression)")
    found = [n for n, name in names.items() if label == n or str(label).lower() == name.lower()]
    if len(found) != 1:
        listed = ", ".join(f"{number} ({name})" for number, name in sorted(names.items()))
        raise ConfigError(f"{label!r} is no label of the model, which has {listed}")
    return found[0]


def independent(config: PretrainedConfig) -> bool:
    """Whether each class has a probability of its own, instead of one out of several being true."""
    return config.num_labels == 1 or config.problem_type == "multi_label_classification"


def pad_id(config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase) -> int:
    """What short texts are filled up with."""
    for found in (config.pad_token_id, tokenizer.pad_token_id, tokenizer.eos_token_id):
        if isinstance(found, int):
            return found
    return 0


def room(config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Most tokens of a text; None where nothing is said of it."""
    limits = [tokenizer.model_max_length, getattr(config, "max_position_embeddings", None)]
    known = [limit for limit in limits if isinstance(limit, int) and 0 < limit < 10**9]
    return min(known, default=None)
