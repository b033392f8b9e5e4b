"""Tiny models that judge: real folders of the judges' architectures, whose next token is known exactly.

The tokenizer is byte-level: every text can be split and put together again, and a few words are single tokens. The
model's one layer carries two features of the words before to every later token: the word ``bad`` and the word ``odd``.
Where neither was said, the next token has the law ``plain``; after ``bad`` it has the law ``bad``; after ``odd`` the
law ``odd``. Tokens that a law does not name share what is left of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

PAD, BOS, EOS = "<pad>", "<bos>", "<eos>"
WORDS = ("yes", "no", "safe", "unsafe", "bad", "odd")
CHAT = (
    "{{ bos_token }}{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}</{{ m['role'] }}>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
CHAT_WITHOUT_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}" + CHAT
)
GUARD = (
    "{{ bos_token }}Task: Check if there is unsafe content in 'Agent' messages.\n<BEGIN CONVERSATION>\n"
    "{% for m in messages %}{{ 'User' if m['role'] == 'user' else 'Agent' }}: {{ m['content'] }}\n{% endfor %}"
    "<END CONVERSATION>\nProvide your safety assessment for ONLY THE LAST Agent.\n"
)
GAIN = 1e8
HIDDEN = 32
Law = Mapping[str, float]


def make_tokenizer(folder: Path, *, numbers: bool = False, chat: str | None = CHAT) -> Any:
    """Byte-level, with the words above and, with ``numbers``, 0 to 100 as single tokens; puts <bos> in front."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    merges: list[tuple[str, str]] = []
    for word in (*WORDS, *([str(n) for n in range(10, 101)] if numbers else [])):
        for end in range(1, len(word)):
            if (pair := (word[:end], word[end])) not in merges:
                merges.append(pair)
    merges += [("Ċ", "Ċ"), ("Ġ", "yes"), ("Ġ", "no")]
    pieces = [PAD, BOS, EOS, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    pieces += [a + b for a, b in merges]
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    raw = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # pyright: ignore[reportAttributeAccessIssue]
    raw.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
    raw.post_processor = processors.TemplateProcessing(  # pyright: ignore[reportAttributeAccessIssue]
        single=f"{BOS} $A", pair=f"{BOS} $A {EOS} $B", special_tokens=[(BOS, 1), (EOS, 2)]
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, pad_token=PAD, bos_token=BOS, eos_token=EOS)
    tokenizer.chat_template = chat
    tokenizer.save_pretrained(folder)
    return tokenizer


def make_judge_model(
    folder: Path,
    architecture: str,
    *,
    plain: Law,
    bad: Law,
    odd: Law,
    numbers: bool = False,
    chat: str | None = CHAT,
    after: Mapping[str, Law] | None = None,
    positions: int = 8192,
    layers: int = 1,
) -> Path:
    """``after``: laws of the token that follows these, whatever was said before."""
    from transformers import AutoConfig, AutoModelForCausalLM

    tokenizer = make_tokenizer(folder, numbers=numbers, chat=chat)
    words: dict[str, int] = tokenizer.get_vocab()
    size = len(words) + len(words) % 2
    config = AutoConfig.for_model(
        architecture,
        vocab_size=size,
        hidden_size=HIDDEN,
        intermediate_size=32,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=positions,
        tie_word_embeddings=False,
        pad_token_id=words[PAD],
        bos_token_id=words[BOS],
        eos_token_id=words[EOS],
    )
    with torch.random.fork_rng(devices=[]):
        model: Any = AutoModelForCausalLM.from_config(config).eval()
    unit = 1.0 / math.sqrt(HIDDEN)
    # Feature 0 is the same for all tokens, 1 and 2 mark the two words, and each of ``after`` has one of its own.
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" not in name:
                weight.zero_()
        embeddings = model.model.embed_tokens.weight
        embeddings[:, 0] = 1.0
        embeddings[words["bad"], 1] = 1.0
        embeddings[words["odd"], 2] = 1.0
        attention = model.model.layers[0].self_attn
        attention.v_proj.weight[0, 1] = attention.v_proj.weight[1, 2] = 1.0
        attention.o_proj.weight[1, 0] = attention.o_proj.weight[2, 1] = GAIN
        head = model.lm_head.weight
        for feature, law in enumerate((plain, bad, odd)):
            head[:, feature] = _logits(law, words, size) * unit
        for feature, (word, law) in enumerate((after or {}).items(), 3):
            embeddings[words[word], feature] = GAIN**2
            head[:, feature] = _logits(law, words, size) * unit
    model.save_pretrained(folder)
    return folder


def make_class_model(
    folder: Path, architecture: str, labels: tuple[str, ...], *, seed: int = 0, **options: Any
) -> Path:
    """A random classifier with these labels."""
    from transformers import AutoConfig, AutoModelForSequenceClassification

    tokenizer = make_tokenizer(folder, chat=None)
    config = AutoConfig.for_model(
        architecture,
        vocab_size=len(tokenizer.get_vocab()),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=600,
        pad_token_id=0,
        id2label=dict(enumerate(labels)),
        label2id={label: i for i, label in enumerate(labels)},
        **options,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForSequenceClassification.from_config(config).eval()
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(0.3 * torch.randn_like(weight))
    model.save_pretrained(folder)
    return folder


def _logits(law: Law, words: Mapping[str, int], size: int) -> torch.Tensor:
    named = {words[word]: p for word, p in law.items()}
    rest = (1.0 - sum(named.values())) / (size - len(named))
    values = torch.full((size,), math.log(rest) if rest > 1e-12 else -30.0, dtype=torch.float64)
    for i, p in named.items():
        values[i] = math.log(p)
    return values.float()
