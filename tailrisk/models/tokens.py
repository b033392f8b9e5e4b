"""Between texts and token ids: prompts through the chat template, stop tokens, responses back to text.

Rendering depends on nothing but the tokenizer, the messages and the system prompt: a template that asks for
today's date gets a fixed one, so a law does not change overnight.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from tailrisk.errors import ConfigError, ModelError
from tailrisk.models.digests import text_digest
from tailrisk.records import Prompt

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedTokenizerBase

# The date that Llama's own templates fall back to where the caller gives none.
PINNED_DATE = datetime.date(2024, 7, 26)
_PROBE = "tailrisk probe"


def render_prompt(
    tokenizer: PreTrainedTokenizerBase, prompt: Prompt, system_prompt: str | None = None
) -> tuple[int, ...]:
    """Token ids of the prompt as the model is asked, up to where its answer begins.

    ``system_prompt`` None leaves it to the template (which may have a default of its own); '' is an empty
    system message. Errors: ModelError where there is no chat template or it refuses the messages.
    """
    messages = [dict(m) for m in prompt.messages]
    if system_prompt is not None:
        messages.insert(0, {"role": "system", "content": system_prompt})
    ids = _apply(tokenizer, messages, f"prompt {prompt.id!r}", tokenize=True)["input_ids"]
    if not ids:
        raise ModelError(f"prompt {prompt.id!r}: the chat template gives no tokens")
    return tuple(int(i) for i in ids)


def opening_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[int, ...]:
    """Token ids of a text that an answer begins with: no special tokens are added.

    Errors: ConfigError where it cannot be tokenised or has no tokens.
    """
    try:
        ids = cast("list[int]", tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
    except Exception as error:
        raise ConfigError(
            f"opening {text!r}: cannot be tokenised ({type(error).__name__}: {error})"
        ) from error
    if not ids:
        raise ConfigError(f"opening {text!r}: the tokenizer gives no tokens for it")
    return tuple(int(i) for i in ids)


def reads_system_prompt(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a system message reaches the model at all; some templates drop it without a word.

    Errors: ModelError where the template refuses system messages outright, or there is none.
    """
    messages = [{"role": "system", "content": _PROBE}, {"role": "user", "content": "x"}]
    return _PROBE in _apply(tokenizer, messages, "a system prompt", tokenize=False)


def template_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """sha256 of all that rendering depends on besides the messages. Errors: ModelError."""
    special = sorted((k, str(v)) for k, v in tokenizer.special_tokens_map.items())
    return text_digest(_template(tokenizer), repr(special), PINNED_DATE.isoformat())


def stop_ids(
    tokenizer: PreTrainedTokenizerBase,
    generation_config: GenerationConfig | None,
    override: Sequence[int] | None = None,
) -> tuple[int, ...]:
    """Ids that end a response, sorted: ``override`` where given, else the end-of-sequence ids of the
    tokenizer and of the generation config together. Errors: ConfigError where none is known."""
    if override is not None:
        return tuple(sorted({int(i) for i in override}))
    found: set[int] = set()
    for ids in (tokenizer.eos_token_id, getattr(generation_config, "eos_token_id", None)):
        ids = cast("int | list[int] | None", ids)
        found.update([ids] if isinstance(ids, int) else ids or ())
    if not found:
        raise ConfigError(
            "neither the tokenizer nor the generation config names an end-of-sequence token; set "
            "target.sampling.stop_token_ids ([] if responses never stop before max_new_tokens)"
        )
    return tuple(sorted(int(i) for i in found))


def decode_texts(
    tokenizer: PreTrainedTokenizerBase, tokens: Sequence[NDArray[np.int32] | Sequence[int]]
) -> list[str]:
    """Responses as text, special tokens left out, spaces untouched."""
    return [
        str(
            tokenizer.decode(
                np.asarray(t).tolist(), skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
        )
        for t in tokens
    ]


def _template(tokenizer: PreTrainedTokenizerBase) -> str:
    try:
        return tokenizer.get_chat_template()
    except Exception as error:
        raise ModelError(
            f"the tokenizer of {tokenizer.name_or_path!r} has no chat template ({type(error).__name__}); use "
            "an instruction-tuned model, or put a chat_template.jinja into its folder"
        ) from error


def _apply(
    tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]], what: str, tokenize: bool
) -> Any:
    template = _template(tokenizer)
    try:
        return tokenizer.apply_chat_template(
            messages,
            chat_template=template,
            add_generation_prompt=True,
            tokenize=tokenize,
            return_dict=tokenize,
            tokenizer_kwargs={"verbose": False},
            strftime_now=lambda pattern: PINNED_DATE.strftime(str(pattern)),
        )
    except Exception as error:
        raise ModelError(
            f"{what}: the tokenizer or chat template of {tokenizer.name_or_path!r} refuses it "
            f"({type(error).__name__}: {' '.join(str(error).split())[:300]})"
        ) from error
