"""Rendering of prompts, stop tokens, texts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tinymodel import EOS, make_tiny_model, prompt
from transformers import GenerationConfig, PreTrainedTokenizerBase

from tailrisk.errors import ConfigError, ModelError
from tailrisk.models.loading import load_tokenizer, resolve_model
from tailrisk.models.tokens import (
    decode_texts,
    opening_ids,
    reads_system_prompt,
    render_prompt,
    stop_ids,
    template_digest,
)
from tailrisk.records import Prompt

# The vocabulary: 0 <pad>, 1 <bos>, 2 <eos>, 3 user, 4 assistant, 5 system, 6 w0, 7 w1 ...


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> PreTrainedTokenizerBase:
    return load_tokenizer(resolve_model(str(tiny_model), Path("/")))


def with_template(tmp_path: Path, template: str | None) -> PreTrainedTokenizerBase:
    make_tiny_model(tmp_path / "m", layers=1, chat_template=template)
    return load_tokenizer(resolve_model("m", tmp_path))


def test_a_prompt_ends_where_the_answer_begins(tokenizer: PreTrainedTokenizerBase) -> None:
    assert render_prompt(tokenizer, prompt("w0 w1")) == (1, 3, 6, 7, 4)


def test_a_system_prompt_comes_first_and_none_leaves_it_to_the_template(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    assert render_prompt(tokenizer, prompt("w0"), "w3 w3") == (1, 5, 9, 9, 3, 6, 4)
    assert render_prompt(tokenizer, prompt("w0"), "") == (1, 5, 3, 6, 4)


def test_several_turns_keep_their_order_and_the_prompt_is_not_changed(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    turns = (
        {"role": "user", "content": "w0"},
        {"role": "assistant", "content": "w1"},
        {"role": "user", "content": "w2"},
    )
    chat = Prompt(id="p", messages=turns)
    assert render_prompt(tokenizer, chat, "w3") == (1, 5, 9, 3, 6, 4, 7, 3, 8, 4)
    assert len(chat.messages) == 3


def test_content_is_data_and_no_template(tokenizer: PreTrainedTokenizerBase) -> None:
    assert render_prompt(tokenizer, prompt("{{7*7}}")) == render_prompt(tokenizer, prompt("unknown-word"))


def test_dates_are_pinned(tmp_path: Path) -> None:
    tokenizer = with_template(tmp_path, "{{ strftime_now('%d %b %Y') }}|{{ messages[0]['content'] }}")
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "w0"}], tokenize=False, strftime_now=lambda f: "w1"
    )
    assert text == "w1|w0"
    # Words that are today's date would be unknown; the pinned ones are too, so count on the words alone.
    first = render_prompt(tokenizer, prompt("w0"))
    assert first == render_prompt(tokenizer, prompt("w0"))


def test_the_pinned_date_reaches_the_template(tmp_path: Path) -> None:
    template = "{% if strftime_now('%Y-%m-%d') == '2024-07-26' %}w0{% else %}w1{% endif %}"
    assert render_prompt(with_template(tmp_path, template), prompt()) == (6,)


def test_no_chat_template_says_so(tmp_path: Path) -> None:
    tokenizer = with_template(tmp_path, None)
    with pytest.raises(ModelError, match="no chat template"):
        render_prompt(tokenizer, prompt())
    with pytest.raises(ModelError, match="no chat template"):
        template_digest(tokenizer)


def test_a_template_that_refuses_names_the_prompt_and_the_reason(tmp_path: Path) -> None:
    tokenizer = with_template(tmp_path, "{{ raise_exception('System role not supported') }}")
    with pytest.raises(ModelError, match=r"'p7'.*System role not supported"):
        render_prompt(tokenizer, prompt(id="p7"), "be good")


def test_a_template_without_tokens_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no tokens"):
        render_prompt(with_template(tmp_path, "{# nothing #}"), prompt())


def test_a_template_that_drops_system_prompts_is_noticed(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    assert reads_system_prompt(tokenizer)
    assert not reads_system_prompt(with_template(tmp_path, "{{ messages[-1]['content'] }}"))


def test_the_template_digest_follows_the_template(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    other = with_template(tmp_path, "{{ messages[-1]['content'] }}")
    assert template_digest(tokenizer) == template_digest(tokenizer)
    assert template_digest(tokenizer) != template_digest(other)


def test_stop_tokens_are_those_of_tokenizer_and_generation_config(tokenizer: PreTrainedTokenizerBase) -> None:
    assert stop_ids(tokenizer, None) == (EOS,)
    assert stop_ids(tokenizer, GenerationConfig(eos_token_id=[9, 2])) == (2, 9)
    assert stop_ids(tokenizer, GenerationConfig(eos_token_id=9), [5, 4, 5]) == (4, 5)
    assert stop_ids(tokenizer, None, ()) == ()


def test_no_stop_token_at_all_is_a_config_error(tmp_path: Path) -> None:
    tokenizer = with_template(tmp_path, "x")
    tokenizer.eos_token = None
    with pytest.raises(ConfigError, match="stop_token_ids"):
        stop_ids(tokenizer, GenerationConfig())


def test_texts_leave_special_tokens_out_and_spaces_in(tokenizer: PreTrainedTokenizerBase) -> None:
    tokens = [np.array([6, 7, 2], np.int32), np.array([2], np.int32), [8]]
    assert decode_texts(tokenizer, tokens) == ["w0 w1", "", "w2"]


def test_openings(tokenizer: PreTrainedTokenizerBase) -> None:
    assert opening_ids(tokenizer, "w0 w2") == (6, 8)
    with pytest.raises(ConfigError, match="no tokens"):
        opening_ids(tokenizer, "  ")


def test_a_lone_surrogate_is_an_error_with_the_prompts_name(tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(ModelError, match="'p0'"):
        render_prompt(tokenizer, prompt("\ud800"))


@pytest.mark.embedded
def test_the_embedded_models_prompts() -> None:
    tokenizer = load_tokenizer(resolve_model("smollm2", Path()))
    ids = render_prompt(tokenizer, prompt("Hi"), "Be brief.")
    assert tokenizer.decode(list(ids)) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )
    assert stop_ids(tokenizer, None) == (2,)
