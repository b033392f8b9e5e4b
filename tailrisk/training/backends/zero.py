"""Several processes that share optimiser, gradients and (stage 3) weights: DeepSpeed's ZeRO.

The optimiser is torch's own AdamW, as in the other back ends; processes on CPUs talk by gloo.
"""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from tailrisk.errors import ConfigError
from tailrisk.records import FloatArray
from tailrisk.training.backends.ddp import gathered
from tailrisk.training.backends.plain import adamw
from tailrisk.training.lorabatches import step_shape
from tailrisk.training.loramodel import State, factors
from tailrisk.trainingconfig import LoraTraining

if TYPE_CHECKING:
    from peft import PeftModel

_TAG = "fit"
OURS = (
    "train_batch_size",
    "train_micro_batch_size_per_gpu",
    "gradient_accumulation_steps",
    "gradient_clipping",
    "optimizer",
    "scheduler",
)
"""Keys of a DeepSpeed configuration that the training's own settings decide."""


class Zero:
    def __init__(self, model: PeftModel, settings: LoraTraining) -> None:
        check_deepspeed()
        import deepspeed

        options = deepspeed_options(settings)
        if next(model.parameters()).device.type == "cpu":
            # It would be compiled, in minutes, and serves DeepSpeed's inference alone.
            deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        deepspeed.init_distributed(dist_backend=dist.get_backend(), verbose=False)
        self.rank, self.world = dist.get_rank(), dist.get_world_size()
        self._peft = model
        _, self._passes = step_shape(settings.batch, self.world, settings.rows)
        self._device = next(model.parameters()).device
        engine, *_ = deepspeed.initialize(
            model=model,
            optimizer=adamw([p for p in model.parameters() if p.requires_grad], settings),
            config={
                **options,
                "train_micro_batch_size_per_gpu": 1,
                "gradient_accumulation_steps": self._passes,
                "gradient_clipping": settings.clip,
                "zero_allow_untested_optimizer": True,
                "zero_force_ds_cpu_optimizer": False,
            },
            dist_init_required=False,
        )
        self._engine: Any = engine
        self.model = engine

    def backward(self, loss: torch.Tensor, last: bool) -> None:
        # It averages over processes and passes where the step's gradient is a sum.
        self._engine.backward(loss * (self.world * self._passes))
        if not last:
            self._engine.step()

    def step(self) -> None:
        self._engine.step()

    def gather(self, values: FloatArray) -> list[FloatArray]:
        return gathered(values, self._device, self.world)

    def factors(self) -> State:
        import deepspeed

        learning = [p for p in self._peft.parameters() if p.requires_grad]
        with deepspeed.zero.GatheredParameters(learning, enabled=self._engine.zero_optimization_stage() == 3):
            return factors(self._peft)

    def save(self, folder: Path) -> None:
        self._engine.save_checkpoint(str(folder), tag=_TAG, exclude_frozen_parameters=True)

    def load(self, folder: Path) -> None:
        found, _ = self._engine.load_checkpoint(str(folder), tag=_TAG, load_module_strict=False)
        if found is None:
            raise ConfigError(
                f"{folder} has no checkpoint of DeepSpeed; remove the folder to begin the fit anew"
            )


def check_deepspeed() -> None:
    """Errors: ConfigError where it is not installed."""
    if importlib.util.find_spec("deepspeed") is None:
        raise ConfigError(
            "training.backend: deepspeed is not installed: DS_BUILD_OPS=0 pip install 'lm-tailrisk[deepspeed]', or "
            "take the backend 'ddp'"
        )
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")


def deepspeed_options(settings: LoraTraining) -> dict[str, Any]:
    """The configuration file, or the stage alone. Errors: ConfigError."""
    if settings.deepspeed is None:
        return {"zero_optimization": {"stage": settings.zero}}
    path = Path(settings.deepspeed)
    try:
        options = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"training.deepspeed: {path} cannot be read as JSON ({error})") from error
    if not isinstance(options, dict) or not isinstance(options.get("zero_optimization"), dict):
        raise ConfigError(f"training.deepspeed: {path} has no zero_optimization")
    if wrong := sorted(set(OURS) & set(options)):
        raise ConfigError(
            f"training.deepspeed: {path} sets {wrong[0]}, which training's own settings decide; leave it out"
        )
    return options
