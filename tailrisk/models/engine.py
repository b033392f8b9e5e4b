"""A model as the engine sees it: hidden states from tokens, logits from hidden states, one view at a time.

Nothing of ``generate`` is used and nothing is inherited from a generation config. The engine applies the
output layer itself, to the positions that need it; whether that gives the model's own logits is checked once.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import NamedTuple, cast
from weakref import WeakKeyDictionary

import torch
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from tailrisk.errors import ModelError
from tailrisk.models.attention import engine_attention
from tailrisk.models.interventions import Intervention, active, all_applied
from tailrisk.models.pipeline import pipeline_of

_KNOWN_LAYERS = {"full_attention", "sliding_attention"}


class View(NamedTuple):
    """A pure law before decoding options: a model, changes inside it, and what it is told.

    ``system_prompt`` None leaves the system message to the chat template.
    """

    model: PreTrainedModel
    interventions: tuple[Intervention, ...] = ()
    system_prompt: str | None = None
    name: str = "target"

    @property
    def key(self) -> tuple[int, tuple[str, ...], str | None]:
        """Equal for views that compute the same numbers."""
        return id(self.model), tuple(i.fingerprint for i in active(self.interventions)), self.system_prompt


class Stage:
    """Holds at most one view applied at a time; a context manager that leaves every model as it was."""

    def __init__(self) -> None:
        self._current: View | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *exception: object) -> None:
        self._leave()

    def show(self, view: View) -> Body:
        """The view's model with its interventions in place, until another view is shown."""
        body = body_of(view.model)
        if self._current is None or view.key != self._current.key:
            self._leave()
            self._stack.enter_context(engine_attention(view.model))
            # Before inference mode, so that merged weights kept for later are ordinary tensors.
            self._stack.enter_context(all_applied(view.model, view.interventions))
            self._stack.enter_context(torch.inference_mode())
            self._current = view
        return body

    def _leave(self) -> None:
        self._current = None
        self._stack.close()


class Body:
    """The two halves of a causal language model."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._backbone: Callable[..., object] = model.get_decoder()
        self._head = cast(Callable[[torch.Tensor], torch.Tensor], model.get_output_embeddings())
        self.config = model.config.get_text_config()
        self.device = model.device
        self._softcap: float | None = getattr(self.config, "final_logit_softcapping", None)
        self._factor = _logit_factor(self.config)
        self._pipeline = pipeline_of(model, int(self.config.hidden_size), self.vocabulary)
        _check_layers(self.config)
        self._check_head(model)

    @property
    def vocabulary(self) -> int:
        return int(self.config.vocab_size)

    def hidden(
        self,
        ids: torch.Tensor,
        start: int | torch.Tensor,
        cache: Cache | None,
        mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Last hidden states [rows, tokens, H] of ``ids`` [rows, tokens]. ``start`` is the first position,
        or all positions [rows, tokens]; ``mask`` [rows or 1, 1, tokens, keys] is True where a
        token sees a key."""
        if isinstance(start, int):
            start = torch.arange(start, start + ids.shape[1], device=ids.device).unsqueeze(0)

        def stack(**begun: torch.Tensor) -> torch.Tensor:
            output = self._backbone(
                **begun,
                position_ids=start,
                attention_mask=mask,
                past_key_values=cache,
                use_cache=cache is not None,
            )
            return output.last_hidden_state  # pyright: ignore[reportAttributeAccessIssue]

        return stack(input_ids=ids) if self._pipeline is None else self._pipeline.hidden(stack, ids)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """[n, V] from [n, H], in the model's dtype."""
        logits = self._head(hidden) if self._pipeline is None else self._pipeline.logits(self._head, hidden)
        if self._factor != 1.0:
            logits = logits * self._factor
        if self._softcap is not None:
            logits = torch.tanh(logits / self._softcap) * self._softcap
        return logits

    def check_length(self, prompt: int, new: int, where: str) -> None:
        """Errors: ModelError where prompt and response do not fit what the model can see."""
        room = getattr(self.config, "max_position_embeddings", None)
        if room is not None and prompt + new > room:
            raise ModelError(
                f"{where}: {prompt} prompt tokens and {new} new ones do not fit the model's {room} positions"
            )
        kinds = getattr(self.config, "layer_types", None)
        window = getattr(self.config, "sliding_window", None)
        slides = "sliding_attention" in kinds if kinds else window is not None
        if slides and window is not None and prompt + new > window:
            raise ModelError(
                f"{where}: {prompt} prompt tokens and {new} new ones do not fit the model's attention "
                f"window of {window}; shorten the prompt or max_new_tokens"
            )

    def _check_head(self, model: PreTrainedModel) -> None:
        ids = torch.arange(min(4, self.vocabulary), device=self.device).unsqueeze(0)
        with torch.inference_mode():
            own = model(input_ids=ids, use_cache=False).logits[0].float()
            ours = self.logits(self.hidden(ids, 0, None)[0]).float()
        slack = 1e-4 if model.dtype.itemsize >= 4 else 1e-2
        if not torch.allclose(own, ours, rtol=slack, atol=slack * float(own.abs().max()), equal_nan=True):
            raise ModelError(
                f"{type(model).__name__} does something to its logits that this engine does not know; "
                "its probabilities would be wrong"
            )


def after(prompt: int, count: int, device: torch.device) -> torch.Tensor:
    """[1, 1, count, prompt + count]: what each of ``count`` tokens that follow a prompt sees."""
    return torch.ones((count, prompt + count), dtype=torch.bool, device=device).tril(prompt)[None, None]


_BODIES: WeakKeyDictionary[PreTrainedModel, Body] = WeakKeyDictionary()


def body_of(model: PreTrainedModel) -> Body:
    """The engine's halves of a model, checked once. Errors: ModelError for layouts it cannot run."""
    body = _BODIES.get(model)
    if body is None:
        body = _BODIES[model] = Body(model)
    return body


def _logit_factor(config: object) -> float:
    """Granite divides its logits by ``logits_scaling``, Cohere multiplies them by ``logit_scale``."""
    if (divisor := getattr(config, "logits_scaling", None)) is not None:
        return 1.0 / float(divisor)
    factor = getattr(config, "logit_scale", None)
    return 1.0 if factor is None else float(factor)


def _check_layers(config: object) -> None:
    unknown = sorted(set(getattr(config, "layer_types", None) or ()) - _KNOWN_LAYERS)
    if unknown:
        raise ModelError(
            f"the model has layers of type {', '.join(unknown)}; the engine knows full and sliding attention"
        )
