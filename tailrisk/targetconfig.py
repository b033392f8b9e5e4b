"""The part of the configuration that says what is audited: the target as it is deployed, and the prompts."""

from __future__ import annotations

from pydantic import Field

from tailrisk.proposalconfig import Dtype, Section


class SamplingConfig(Section):
    """The deployment's sampling settings: they define the probability that is estimated."""

    temperature: float = Field(default=1.0, gt=0.0, le=100.0)
    """What the logits are divided by."""
    top_p: float = Field(default=1.0, gt=0.0, le=1.0)
    """The likeliest tokens that hold this much of the probability are sampled from; 1: all."""
    top_k: int = Field(default=0, ge=0)
    """So many of the likeliest tokens are sampled from; 0: all."""
    max_new_tokens: int = Field(default=128, ge=1)
    """Length at which an answer is cut."""
    stop_token_ids: tuple[int, ...] | None = None
    """Ids that end a response; null: the tokenizer's and the generation config's end-of-sequence ids."""


class TargetConfig(Section):
    """The model whose answers are audited."""

    model: str
    """A hub id, a local folder, or ``smollm2``, the embedded model."""
    adapter: str | None = None
    """A PEFT (LoRA) folder, or the name of one in MLflow, that is part of the target."""
    dtype: Dtype = "bfloat16"
    """In which weights are loaded and all passes are made."""
    system_prompt: str | None = None
    """What the model is told first; null: what its chat template puts there itself."""
    sampling: SamplingConfig = SamplingConfig()
    """How the target is deployed."""
    device: str = "auto"
    """As torch names it; ``auto``: a GPU where a worker has one."""


class PromptsConfig(Section):
    """The file of prompts. Columns that are not named are found by their usual names."""

    path: str
    """jsonl, csv, tsv, parquet or txt (a prompt a line)."""
    limit: int | None = Field(default=None, ge=1)
    """Only the first so many."""
    prompt: str | None = None
    """Column of the prompts: texts, or lists of chat messages."""
    id: str | None = None
    """Column of the ids; without one the first 12 hex digits of the content's SHA-256."""
    category: str | None = None
    """Column of the categories that tables and reports group by."""
    group: str | None = None
    """Column of the group of prompts that are versions of one another (a base prompt and paraphrases)."""
    perturbation: str | None = None
    """Column of what was changed of a group's base prompt; empty for the base itself."""
