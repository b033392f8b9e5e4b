"""Which first tokens mean refusal, and where the template's end begins."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tinymodel import make_tiny_model, prompt

from tailrisk.errors import ConfigError, ModelError
from tailrisk.judges.refusal import explain
from tailrisk.models.loading import load_tokenizer, resolve_model
from tailrisk.models.tokens import render_prompt
from tailrisk.training.openers import end_positions, openers, refusal_tokens


class Words:
    """A tokenizer of whole words, each new one getting the next id."""

    def __init__(self) -> None:
        self.ids: dict[str, int] = {}

    def __call__(self, text: str, **options: object) -> dict[str, list[int]]:
        return {"input_ids": [self.ids.setdefault(word, len(self.ids)) for word in text.split()]}

    def decode(self, ids: list[int]) -> str:
        return list(self.ids)[ids[0]]


def laws(table: dict[str, float], tokenizer: Words, size: int = 1000) -> torch.Tensor:
    """Two prompts' log-probabilities with these means; the rest is spread evenly."""
    found = torch.full((2, size), (1 - sum(table.values())) / size)
    for word, p in table.items():
        found[:, tokenizer(word)["input_ids"][0]] += torch.tensor([p * 0.5, p * 1.5])
    return found.log()


def test_openers_are_refusals_as_an_answer_writes_them() -> None:
    texts = list(openers())
    assert {"Sorry", "I cannot", "I can't", "I’m unable", "As an AI", "Unfortunately"} <= set(texts)
    assert all(t[0].isupper() for t in texts)
    assert all(explain("", t + " and so on and so forth, my dear") in ("opener", "early") for t in texts)


def test_refusal_tokens_are_frequent_and_more_so_on_harmful_prompts() -> None:
    words = Words()
    harmful = laws({"I": 0.5, "Sorry": 0.02, "As": 0.1, "Unfortunately": 0.001, "Sure": 0.3}, words)
    harmless = laws({"I": 0.2, "As": 0.2, "Sure": 0.5}, words)
    found = refusal_tokens(words, harmful, harmless)  # pyright: ignore[reportArgumentType]
    assert [t.text for t in found] == ["I", "Sorry"], "As is likelier on harmless prompts, Sure no refusal"
    assert found[0].harmful == pytest.approx(0.5, abs=0.01)
    assert found[0].harmless == pytest.approx(0.2, abs=0.01)


def test_a_model_that_never_refuses_is_an_error_that_says_what_was_seen() -> None:
    words = Words()
    harmful, harmless = (laws({"Sure": 0.9, "I": p}, words) for p in (0.05, 0.06))
    with pytest.raises(ModelError, match=r"most often with 'I': probability 0.05,.*--refusals"):
        refusal_tokens(words, harmful, harmless)  # pyright: ignore[reportArgumentType]


def test_given_texts_are_taken_as_they_are() -> None:
    words = Words()
    law = laws({"Nope": 1e-4}, words)
    found = refusal_tokens(words, law, law, ["Nope never", "Nope"])  # pyright: ignore[reportArgumentType]
    assert [t.text for t in found] == ["Nope"]
    with pytest.raises(ConfigError, match="no tokens"):
        refusal_tokens(words, law, law, [" "])  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match="outside the model's 1 output tokens"):
        refusal_tokens(words, law[:, :1], law[:, :1], ["x", "y", "z"])  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("end", "count"), [("", 1), (" assistant", 1), (" w9 w9 assistant", 3), (" w9" * 20, 8)]
)
def test_the_end_is_what_all_rendered_prompts_share(tmp_path: Path, end: str, count: int) -> None:
    template = "{{ bos_token }}{% for m in messages %} {{ m['content'] }} {% endfor %}" + end
    folder = make_tiny_model(tmp_path / "m", chat_template=template)
    tokenizer = load_tokenizer(resolve_model(str(folder), Path("/")))
    ids = [render_prompt(tokenizer, prompt(text)) for text in ("w0 w1", "w0 w2 w3")]
    assert end_positions(tokenizer, ids, None) == count


@pytest.mark.embedded
def test_the_end_of_the_embedded_models_template() -> None:
    tokenizer = load_tokenizer(resolve_model("smollm2", Path("/")))
    ids = [render_prompt(tokenizer, prompt(text)) for text in ("What?", "Why?")]
    assert end_positions(tokenizer, ids, None) == 6, "<|im_end|> newline <|im_start|> ass istant newline"
