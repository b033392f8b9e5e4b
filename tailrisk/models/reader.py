"""A language model as somebody who reads: whole prompts in, the law of the next token or a greedy reply out.

For judges. Several prompts go through the model at once, padded on the right, where no token of theirs sees the
padding. In a group of ranks (``models.sharding``) all of them call the same methods with the same prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from tailrisk.errors import ModelError
from tailrisk.models.engine import Body, Stage, View, body_of
from tailrisk.models.interventions.adapter import load_adapter
from tailrisk.models.interventions.lora import Lora
from tailrisk.models.loading import (
    adapter_folder,
    load_generation_config,
    load_model,
    load_tokenizer,
    resolve_model,
)
from tailrisk.models.sampling import Limits, Part, Phase, sample
from tailrisk.models.sharding import distributed_config, shared
from tailrisk.models.tokens import stop_ids
from tailrisk.models.warp import Warp
from tailrisk.records import FloatArray

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_GREEDY = Warp(top_k=1)
# Another token for the same prompts means other sums for the same rows: bounded so that a pass fits a small GPU.
_MOST_TOKENS = 32_768


class NextToken(NamedTuple):
    """``asked`` [ids]: probabilities of the tokens that were asked for; ``likeliest``: of all tokens. NaN where the
    model's outputs are not finite."""

    asked: FloatArray
    likeliest: int
    highest: float


class Reader:
    """``tokenizer`` and the model behind it; ``batch``: prompts in one pass at most."""

    def __init__(
        self, view: View, tokenizer: PreTrainedTokenizerBase, stops: tuple[int, ...], batch: int
    ) -> None:
        self.tokenizer = tokenizer
        self._view = view
        self._stops = stops
        self._batch = batch
        self._body = body_of(view.model)

    @classmethod
    def load(
        cls, model: str, adapter: str | None, base: Path, *, dtype: str, device: str, batch: int
    ) -> Reader:
        """Errors: ConfigError, ModelError."""
        ref = resolve_model(model, base)
        tokenizer = load_tokenizer(ref)
        loaded = load_model(ref, dtype, device)
        if adapter is not None:
            Lora(load_adapter(adapter_folder(adapter, base), loaded.config)).settle(loaded)
        stops = stop_ids(tokenizer, load_generation_config(ref))
        return cls(View(loaded, name=model), tokenizer, stops, batch)

    @property
    def vocabulary(self) -> int:
        """Number of output tokens."""
        return self._body.vocabulary

    def misfit(self, prompt: Sequence[int], new: int = 1) -> str:
        """Why the model cannot read this prompt and say ``new`` tokens; '' where it can."""
        if not prompt:
            return "there is nothing to read"
        if not 0 <= min(prompt) <= max(prompt) < self.vocabulary:
            return f"a token is outside the model's vocabulary ({self.vocabulary})"
        try:
            self._body.check_length(len(prompt), new, "the text")
        except ModelError as error:
            return str(error)
        return ""

    def next_tokens(self, prompts: Sequence[tuple[int, ...]], ids: Sequence[int]) -> list[NextToken]:
        """The law of the token after each prompt, of which the probabilities of ``ids`` are told."""
        distinct = sorted(set(prompts), key=len)
        found: dict[tuple[int, ...], NextToken] = {}
        with Stage() as stage:
            body = stage.show(self._view)
            wanted = torch.tensor(list(ids), dtype=torch.int64, device=body.device)
            while distinct:
                width = self._fitting(distinct)
                some, distinct = distinct[:width], distinct[width:]
                found |= zip(some, self._pass(body, some, wanted), strict=True)
        return [found[prompt] for prompt in prompts]

    def replies(self, prompts: Sequence[tuple[int, ...]], max_tokens: int) -> list[str]:
        """What the model says to each prompt when it always takes the likeliest token, up to a stop token. One at a
        time: in half precision the others in a batch would decide which of two near tokens is the likeliest."""
        limits = Limits(max_tokens, self._stops, _GREEDY)
        said: dict[tuple[int, ...], str] = {}
        for prompt in dict.fromkeys(prompts):
            phase = Phase(max_tokens, (Part(self._view, prompt),))
            tokens = sample([phase], limits, 1, 0, where="the judge's reply").tokens[0]
            said[prompt] = str(self.tokenizer.decode(tokens.tolist(), skip_special_tokens=True))
        return [said[prompt] for prompt in prompts]

    def _fitting(self, by_length: Sequence[tuple[int, ...]]) -> int:
        """How many of these go in one pass."""
        count = 1
        while (
            count < min(self._batch, len(by_length)) and (count + 1) * len(by_length[count]) <= _MOST_TOKENS
        ):
            count += 1
        return count

    def _pass(self, body: Body, prompts: Sequence[tuple[int, ...]], wanted: torch.Tensor) -> list[NextToken]:
        try:
            return self._read(body, prompts, wanted)
        except torch.cuda.OutOfMemoryError:
            # Of several ranks only this one may be short of memory: the others would wait for it in vain.
            if len(prompts) == 1 or distributed_config() is not None:
                raise
        torch.cuda.empty_cache()
        middle = len(prompts) // 2
        return self._pass(body, prompts[:middle], wanted) + self._pass(body, prompts[middle:], wanted)

    def _read(self, body: Body, prompts: Sequence[tuple[int, ...]], wanted: torch.Tensor) -> list[NextToken]:
        ids = np.zeros((len(prompts), max(map(len, prompts))), dtype=np.int64)
        for row, prompt in enumerate(prompts):
            ids[row, : len(prompt)] = prompt
        hidden = body.hidden(torch.from_numpy(ids).to(body.device), 0, None)
        last = torch.tensor([len(prompt) - 1 for prompt in prompts], device=body.device)
        logits = body.logits(hidden[torch.arange(len(prompts), device=body.device), last])
        law = torch.softmax(logits.to(torch.promote_types(logits.dtype, torch.float32)), -1)
        highest, likeliest = law.max(-1)
        told = torch.cat((law[:, wanted], highest[:, None]), -1).double()
        # Token ids are exact in a float64.
        rows = shared(torch.cat((told, likeliest[:, None].double()), -1).cpu().numpy())
        return [NextToken(row[:-2], int(row[-1]), float(row[-2])) for row in rows]


def spellings(tokenizer: PreTrainedTokenizerBase, vocabulary: int) -> list[str]:
    """[vocabulary] every token as it stands in a text, marks for spaces and line ends at its begin left out."""
    tokens = tokenizer.convert_ids_to_tokens(list(range(min(vocabulary, len(tokenizer)))))
    return [str(token or "").lstrip("▁Ġ Ċ\n") for token in tokens]
