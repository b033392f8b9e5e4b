"""The part of the configuration that says how ``tailrisk train lora`` fits a proposal to harmful draws."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from tailrisk.proposalconfig import Name, Section

Positive = Annotated[float, Field(gt=0.0)]


class LoraShape(Section):
    """Rank, scale and places of the factors; ``modules`` None: every linear layer of the blocks."""

    rank: int = Field(default=8, ge=1, le=1024)
    alpha: Positive = 16.0
    modules: tuple[str, ...] | None = Field(default=None, min_length=1)


class LoraTraining(Section):
    """``rounds`` of drawing and fitting, ``draws`` each, over all prompts; each round draws from the audit's
    proposals and from what the round before it learned. ``held_out``: share of the prompts that no fit sees.
    ``base``: a proposal of the audit that the adapter is added to, or the target.

    A fit goes ``epochs`` times through the hits at most, ``batch`` of them a step, until the divergence on
    held-out prompts has not fallen for ``patience`` epochs. ``ess``: the effective hits that weights are tempered to.
    ``kl``: what a nat of divergence from the base counts, per token after the first ``kl_after``.
    """

    rounds: int = Field(default=2, ge=1, le=20)
    draws: int = Field(default=2000, ge=1)
    held_out: float = Field(default=0.25, gt=0.0, lt=1.0)
    base: Name = "target"
    shape: LoraShape = LoraShape()
    epochs: int = Field(default=12, ge=1)
    patience: int = Field(default=2, ge=1)
    batch: int = Field(default=16, ge=1)
    learning_rate: Positive = 3e-4
    clip: Positive = 1.0
    ess: Positive = 20.0
    kl: float = Field(default=0.01, ge=0.0)
    kl_after: int = Field(default=16, ge=0)
    dtype: Literal["float32", "bfloat16", "float64"] | None = None
    """Of the frozen weights; None: the target's. The factors are float32 at least."""
    backend: Literal["plain", "ddp", "deepspeed"] = "plain"
    workers: int = Field(default=1, ge=1)
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
