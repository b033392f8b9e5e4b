"""What proposal kinds are made from: the loaded target and ways to load more, each thing once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tailrisk.config import Config
from tailrisk.models.engine import View
from tailrisk.models.interventions.adapter import Adapter, load_adapter
from tailrisk.models.interventions.lora import MergeCache
from tailrisk.models.laws import Law
from tailrisk.models.sampling import Limits

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedTokenizerBase


@dataclass(kw_only=True, slots=True)
class Context:
    """``adapter`` is the target's own one, if it has one; all LoRA interventions share ``merges``."""

    config: Config
    target: Law
    adapter: Adapter | None
    tokenizer: PreTrainedTokenizerBase
    limits: Limits
    merges: MergeCache
    _adapters: dict[Path, Adapter] = field(default_factory=dict)

    @property
    def view(self) -> View:
        """The target as a view; proposals change it by ``_replace``."""
        return self.target.view

    def load_adapter(self, path: str) -> Adapter:
        """A PEFT folder that fits the target's model, read once. Errors: ConfigError, ModelError."""
        folder = self.config.resolve(path)
        if folder not in self._adapters:
            self._adapters[folder] = load_adapter(folder, self.view.model.config)
        return self._adapters[folder]
