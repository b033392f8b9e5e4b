"""Where a model's blocks are, and which of their modules write to the residual stream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from tailrisk.errors import ModelError
from tailrisk.models.pipeline import is_placeholder

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

_STACKS = ("layers", "h", "blocks")
_ROOTS = ("model.language_model", "language_model.model", "model", "transformer", "gpt_neox", "model.decoder")
_ATTENTIONS = ("self_attn", "attn", "attention", "self_attention")
_MLPS = ("mlp", "feed_forward", "block_sparse_moe", "ffn")
# Norms between a branch and the stream (Gemma 2 and 3, OLMo 2 and 3; GLM 4). Llama has a norm named
# post_attention_layernorm too, in front of its MLP: only the second name tells.
_BRANCH_NORMS = (
    ("post_attention_layernorm", "post_feedforward_layernorm"),
    ("post_self_attn_layernorm", "post_mlp_layernorm"),
)


class Block(NamedTuple):
    """One layer of the model and its two branches."""

    layer: torch.nn.Module
    attention: torch.nn.Module
    mlp: torch.nn.Module

    @property
    def writers(self) -> tuple[torch.nn.Module, torch.nn.Module]:
        """The modules whose outputs are added to the stream: attention and MLP, or the norms after them."""
        for first, second in _BRANCH_NORMS:
            if hasattr(self.layer, second):
                return getattr(self.layer, first), getattr(self.layer, second)
        return self.attention, self.mlp


def blocks_of(model: PreTrainedModel) -> list[Block]:
    """The model's blocks in order; for one that another rank of a pipeline holds, modules that nothing calls.

    Errors: ModelError for a layout with other names."""
    for root in _ROOTS:
        owner = _descend(model, root)
        layers = next((v for n in _STACKS if (v := getattr(owner, n, None)) is not None), None)
        if layers is None or len(layers) == 0:
            continue
        found = []
        for layer in layers:
            if is_placeholder(layer):
                found.append(_idle())
                continue
            attention = next((v for n in _ATTENTIONS if (v := getattr(layer, n, None)) is not None), None)
            mlp = next((v for n in _MLPS if (v := getattr(layer, n, None)) is not None), None)
            if attention is None or mlp is None:
                break
            found.append(Block(layer, attention, mlp))
        else:
            return found
    raise ModelError(
        f"{type(model).__name__}: no list of blocks with 'self_attn' and 'mlp' under 'model.layers'; "
        "activations can be changed in models laid out like Llama, Qwen, Gemma, Mistral, Phi or OLMo"
    )


def hidden_size(model: PreTrainedModel) -> int:
    """Width of the residual stream."""
    return int(model.config.get_text_config().hidden_size)


def _idle() -> Block:
    import torch

    return Block(torch.nn.Identity(), torch.nn.Identity(), torch.nn.Identity())


def _descend(owner: Any, path: str) -> Any:
    for name in path.split("."):
        owner = getattr(owner, name, None)
    return owner
