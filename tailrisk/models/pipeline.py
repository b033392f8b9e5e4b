"""A model whose layers are dealt out over processes, as one: every rank has every hidden state and every logit.

transformers puts identities in the place of the layers that other ranks hold, and gives the model a stage. The
engine calls the stack and the output layer apart from each other, so what passes between ranks is passed here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Pipeline:
    """The ranks' stages of ``model``, in order; its methods are called by all ranks at the same time."""

    def __init__(self, model: PreTrainedModel, hidden_size: int, vocabulary: int) -> None:
        self._stage: Any = model._pp_stage
        self._device, self._dtype = model.device, model.dtype
        self._hidden_size, self._vocabulary = hidden_size, vocabulary

    def hidden(self, stack: Callable[..., torch.Tensor], ids: torch.Tensor) -> torch.Tensor:
        """[rows, tokens, H] of ``ids`` [rows, tokens] after all layers. ``stack`` runs this rank's layers, on
        ``input_ids`` or on ``inputs_embeds`` [rows, tokens, H]."""
        shape = (*ids.shape, self._hidden_size)
        place = {"device": self._device, "dtype": self._dtype}
        before = self._stage.communicate("recv_forward", shape=shape, **place)
        states = stack(input_ids=ids) if before is None else stack(inputs_embeds=before)
        self._stage.communicate("send_forward", tensor=states, **place)
        return self._from_last(states, shape)

    def logits(self, head: Callable[[torch.Tensor], torch.Tensor], hidden: torch.Tensor) -> torch.Tensor:
        """[n, V] from [n, H]; ``head`` is called where the output layer is."""
        logits = head(hidden) if self._stage.pp_is_last_stage else None
        return self._from_last(logits, (len(hidden), self._vocabulary))

    def _from_last(self, tensor: torch.Tensor | None, shape: tuple[int, ...]) -> torch.Tensor:
        import torch.distributed as dist

        stage = self._stage
        at = torch.device("cpu") if stage.comm_on_cpu else self._device
        if stage.pp_is_last_stage:
            assert tensor is not None
            sent = tensor.to(at).contiguous()
        else:
            sent = torch.empty(shape, dtype=self._dtype, device=at)
        dist.broadcast(
            sent, src=dist.get_global_rank(stage.pp_group, stage.pp_size - 1), group=stage.pp_group
        )
        return sent.to(self._device)


def pipeline_of(model: PreTrainedModel, hidden_size: int, vocabulary: int) -> Pipeline | None:
    """None: all of the model's layers are in this process."""
    return Pipeline(model, hidden_size, vocabulary) if hasattr(model, "_pp_stage") else None


def elsewhere(model: PreTrainedModel, name: str) -> bool:
    """Whether the module of this name is held by another rank of the pipeline."""
    owner: Any = model
    for part in name.split("."):
        owner = getattr(owner, part, None)
        if is_placeholder(owner):
            return True
    return False


def is_placeholder(module: object) -> bool:
    """Whether a module stands for one that another rank of the pipeline holds."""
    from transformers.distributed.pipeline_parallel import PipelineIdentityLayer

    return isinstance(module, PipelineIdentityLayer)
