"""One process, plain torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from tailrisk.records import FloatArray
from tailrisk.training.loramodel import State, factors
from tailrisk.trainingconfig import LoraTraining

if TYPE_CHECKING:
    from peft import PeftModel

FILE = "fit.pt"


class Plain:
    rank, world = 0, 1

    def __init__(self, model: PeftModel, settings: LoraTraining) -> None:
        self.model: torch.nn.Module = model
        self._peft = model
        self._clip = settings.clip
        self._learning = [p for p in model.parameters() if p.requires_grad]
        self._optimiser = adamw(self._learning, settings)

    def backward(self, loss: torch.Tensor, last: bool) -> None:
        loss.backward()

    def step(self) -> None:
        torch.nn.utils.clip_grad_norm_(self._learning, self._clip)
        self._optimiser.step()
        self._optimiser.zero_grad(set_to_none=True)

    def gather(self, values: FloatArray) -> list[FloatArray]:
        return [values]

    def factors(self) -> State:
        return factors(self._peft)

    def save(self, folder: Path) -> None:
        learning = {n: p.detach().cpu() for n, p in self._peft.named_parameters() if p.requires_grad}
        torch.save({"factors": learning, "optimiser": self._optimiser.state_dict()}, folder / FILE)

    def load(self, folder: Path) -> None:
        stored = torch.load(folder / FILE, map_location="cpu", weights_only=True)
        with torch.no_grad():
            for name, parameter in self._peft.named_parameters():
                if parameter.requires_grad:
                    parameter.copy_(stored["factors"][name])
        self._optimiser.load_state_dict(stored["optimiser"])


def adamw(parameters: list[torch.nn.Parameter], settings: LoraTraining) -> torch.optim.AdamW:
    """Without weight decay: what keeps the fit near its base is the divergence in the loss."""
    return torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=0.0)
