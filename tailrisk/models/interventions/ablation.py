"""Removal of a direction from the residual stream: x <- x - intensity * (x . d) d.

As in "Refusal in language models is mediated by a single direction" (Arditi et al. 2024): at the input of
every block and at the outputs of its attention and its MLP, at all positions, prompt included. Intensity 1
removes the component along d, 0 is exactly the model, above 1 turns it around. The products are taken in
float32 (float64 for float64 models) and rounded back to the stream's dtype.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from tailrisk.errors import ModelError
from tailrisk.models.digests import text_digest

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

_STACKS = ("layers", "h", "blocks")
_ROOTS = ("model.language_model", "language_model.model", "model", "transformer", "gpt_neox", "model.decoder")
_ATTENTIONS = ("self_attn", "attn", "attention", "self_attention")
_MLPS = ("mlp", "feed_forward", "block_sparse_moe", "ffn")


class Block(NamedTuple):
    """One layer of the model and its two branches."""

    layer: torch.nn.Module
    attention: torch.nn.Module
    mlp: torch.nn.Module


def blocks_of(model: PreTrainedModel) -> list[Block]:
    """The model's blocks in order. Errors: ModelError for a layout with other names."""
    for root in _ROOTS:
        owner = _descend(model, root)
        layers = next((v for n in _STACKS if (v := getattr(owner, n, None)) is not None), None)
        if layers is None or len(layers) == 0:
            continue
        found = []
        for layer in layers:
            attention = next((v for n in _ATTENTIONS if (v := getattr(layer, n, None)) is not None), None)
            mlp = next((v for n in _MLPS if (v := getattr(layer, n, None)) is not None), None)
            if attention is None or mlp is None:
                break
            found.append(Block(layer, attention, mlp))
        else:
            return found
    raise ModelError(
        f"{type(model).__name__}: no list of blocks with 'self_attn' and 'mlp' under 'model.layers'; "
        "directions can be taken out of models laid out like Llama, Qwen, Gemma, Mistral, Phi or OLMo"
    )


class Ablation:
    """``direction`` [hidden size] is scaled to unit length; ``intensity`` 0 leaves the model alone."""

    def __init__(self, direction: torch.Tensor, intensity: float = 1.0) -> None:
        import torch

        vector = direction.detach().to(device="cpu", dtype=torch.float64)
        norm = float(vector.norm())
        if vector.dim() != 1 or not 0.0 < norm < float("inf"):
            raise ModelError(
                f"a direction is a finite vector that is not zero; got shape {list(direction.shape)}"
            )
        self.direction = vector / norm
        self.intensity = float(intensity)
        self._placed: dict[tuple[str, torch.dtype], torch.Tensor] = {}

    @property
    def fingerprint(self) -> str:
        return text_digest("ablation", self.direction.numpy().tobytes(), self.intensity.hex())

    @property
    def neutral(self) -> bool:
        return self.intensity == 0.0

    @contextmanager
    def applied(self, model: PreTrainedModel) -> Iterator[None]:
        """Errors: ModelError where the direction's length is not the model's hidden size, or the layout is
        unknown."""
        if self.neutral:
            yield
            return
        size = model.config.get_text_config().hidden_size
        if self.direction.numel() != size:
            raise ModelError(
                f"the direction has {self.direction.numel()} entries, the model's hidden size is {size}"
            )
        with ExitStack() as stack:
            for block in blocks_of(model):
                handles = (
                    block.layer.register_forward_pre_hook(self._on_input, with_kwargs=True),
                    block.attention.register_forward_hook(self._on_output),
                    block.mlp.register_forward_hook(self._on_output),
                )
                for handle in handles:
                    stack.callback(handle.remove)
            yield

    def remove(self, x: torch.Tensor) -> torch.Tensor:
        """x [..., hidden size] without (intensity 1) its component along the direction, in x's dtype."""
        import torch

        dtype = torch.promote_types(x.dtype, torch.float32)
        key = (str(x.device), dtype)
        if (d := self._placed.get(key)) is None:
            d = self._placed[key] = self.direction.to(device=x.device, dtype=dtype)
        wide = x.to(dtype)
        return (wide - (self.intensity * (wide @ d)).unsqueeze(-1) * d).to(x.dtype)

    def _on_input(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        if args:
            return (self.remove(args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": self.remove(kwargs["hidden_states"])}

    def _on_output(self, module: Any, args: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (self.remove(output[0]), *output[1:])
        return self.remove(output)


def _descend(owner: Any, path: str) -> Any:
    for name in path.split("."):
        owner = getattr(owner, name, None)
    return owner
