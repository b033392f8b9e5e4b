"""How the steps of a fit are computed: in one process, or in several that share the work.

The loop (``tailrisk.training.lorafit``) is the same on all of them; a back end gives it a model to call, takes
gradients to a step, and knows the other processes. Adding one means a file here and a line in ``open_backend``.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch

from tailrisk.records import FloatArray
from tailrisk.training.loramodel import State
from tailrisk.trainingconfig import LoraTraining

if TYPE_CHECKING:
    from peft import PeftModel


class Backend(Protocol):
    """``rank`` of ``world`` processes. ``model`` is called like a causal language model of transformers."""

    @property
    def rank(self) -> int: ...

    @property
    def world(self) -> int: ...

    @property
    def model(self) -> torch.nn.Module: ...

    def backward(self, loss: torch.Tensor, last: bool) -> None:
        """Adds the gradient of one pass; ``last``: of a step, whose gradient is the sum over passes and processes."""
        ...

    def step(self) -> None:
        """One step of the optimiser, the gradient's norm clipped, and gradients at zero again."""
        ...

    def gather(self, values: FloatArray) -> list[FloatArray]:
        """Arrays of the same shape from all processes, in the order of their ranks, on every one of them."""
        ...

    def factors(self) -> State:
        """The factors, whole, on every process."""
        ...

    def save(self, folder: Path) -> None:
        """What a fit needs to go on: factors and optimiser. Every process calls it."""
        ...

    def load(self, folder: Path) -> None: ...


def open_backend(model: PeftModel, settings: LoraTraining) -> Backend:
    """The configured back end around a model; processes, where there are several, have found each other already."""
    if settings.backend == "deepspeed":
        from tailrisk.training.backends.zero import Zero

        return Zero(model, settings)
    if settings.backend == "ddp":
        from tailrisk.training.backends.ddp import Ddp

        return Ddp(model, settings)
    from tailrisk.training.backends.plain import Plain

    return Plain(model, settings)


def check_backend(settings: LoraTraining) -> None:
    """Errors: ConfigError for what the configured back end lacks on this machine, or cannot use."""
    if settings.backend == "deepspeed":
        from tailrisk.training.backends.zero import check_deepspeed, deepspeed_options

        check_deepspeed()
        deepspeed_options(settings)
