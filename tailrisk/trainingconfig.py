"""The part of the configuration that says how ``tailrisk train lora`` fits a proposal to harmful draws."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from tailrisk.proposalconfig import Name, Section

Positive = Annotated[float, Field(gt=0.0)]


class LoraShape(Section):
    """Rank, scale and places of the factors."""

    rank: int = Field(default=8, ge=1, le=1024)
    """Of the factors."""
    alpha: Positive = 16.0
    """The product of the factors is multiplied by ``alpha`` / ``rank``."""
    modules: tuple[str, ...] | None = Field(default=None, min_length=1)
    """Names of the layers that get factors; null: every linear layer of the blocks."""


class LoraTraining(Section):
    """How an adapter is fitted to the target's harmful answers, each weighted as the estimate weighs it."""

    rounds: int = Field(default=2, ge=1, le=20)
    """Rounds of drawing and fitting; each draws from the audit's proposals and from what the one before it learned."""
    draws: int = Field(default=2000, ge=1)
    """Of each round, over all prompts."""
    held_out: float = Field(default=0.25, gt=0.0, lt=1.0)
    """Share of the prompts that no fit sees."""
    base: Name = "target"
    """What the adapter is added to: the target, or a proposal of the audit by its name."""
    shape: LoraShape = LoraShape()
    """The adapter's shape."""
    epochs: int = Field(default=12, ge=1)
    """Times that a fit goes through the hits at most."""
    patience: int = Field(default=2, ge=1)
    """Epochs without a smaller divergence on held-out prompts after which it ends."""
    batch: int = Field(default=16, ge=1)
    """Hits a step."""
    learning_rate: Positive = 3e-4
    """Of the optimiser."""
    clip: Positive = 1.0
    """Norm that gradients are clipped to."""
    ess: Positive = 20.0
    """The effective hits that weights are tempered to."""
    kl: float = Field(default=0.01, ge=0.0)
    """What a nat of divergence from the base counts, per token after the first ``kl_after``."""
    kl_after: int = Field(default=16, ge=0)
    """Tokens that may move freely."""
    dtype: Literal["float32", "bfloat16", "float64"] | None = None
    """Of the frozen weights; null: the target's. The factors are float32 at least."""
    backend: Literal["plain", "ddp", "deepspeed"] = "plain"
    """One process, or several with torch's DDP or with DeepSpeed."""
    workers: int = Field(default=1, ge=1)
    """Processes."""
    zero: Literal[0, 1, 2, 3] = 2
    """DeepSpeed's stage: processes share nothing, optimiser states, gradients too, or the frozen weights as well."""
    deepspeed: str | None = None
    """A JSON file of DeepSpeed options, in the place of ``zero``."""
    rows: int = Field(default=8, ge=1)
    """Most answers in one pass of one process."""
    recompute: bool = False
    """Activations are computed again when gradients need them: less memory, a third more time."""

    @model_validator(mode="after")
    def _workers(self) -> LoraTraining:
        if self.backend == "plain" and self.workers > 1:
            raise ValueError(
                f"workers: {self.workers} need the backend 'ddp' or 'deepspeed'; 'plain' is one process"
            )
        return self

    @property
    def of_a_fit(self) -> dict[str, Any]:
        """What decides how a fit to given data goes, as plain JSON: the rest decides what it is fitted to."""
        return self.model_dump(mode="json", exclude={"rounds", "draws", "held_out", "ess"})
