"""Tiny random models on disk: real ``transformers`` folders that load in milliseconds.

The vocabulary is a WordLevel one: ids 0 ``<pad>``, 1 ``<bos>``, 2 ``<eos>``, then chat markers where they
fit, then words ``w0 w1 ...``. Text is split at white space, so ``"w0 w1"`` is two tokens.
"""

from __future__ import annotations

from pathlib import Path

import torch

from tailrisk.records import Prompt

PAD, BOS, EOS = 0, 1, 2
TINY_AUDIT = """
target: {model: model, dtype: float32, sampling: {max_new_tokens: 3}}
prompts: {path: prompts.txt}
proposals:
  - {name: steered, kind: system_prompt, text: "w3 w3 w3"}
  - {name: opened, kind: prefix, text: "w5"}
cluster: {models: {num_cpus: 1}}
"""
"""What audits of a tiny model in the folder ``model`` have in common; run, judge and budget are to be added."""
CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %} {{ message['role'] }} {{ message['content'] }} {% endfor %}"
    "{% if add_generation_prompt %} assistant {% endif %}"
)


def prompt(text: str = "w0 w1", id: str = "p0") -> Prompt:
    """A prompt of one user message."""
    return Prompt(id=id, messages=({"role": "user", "content": text},))


def words(vocab: int) -> list[str]:
    """The vocabulary in id order; chat markers are left out where there is no room (vocab < 12)."""
    special = ["<pad>", "<bos>", "<eos>"]
    if vocab >= 12:
        special += ["user", "assistant", "system"]
    return special + [f"w{i}" for i in range(vocab - len(special))]


def save_tiny_tokenizer(folder: Path, vocab: int, chat_template: str | None = CHAT_TEMPLATE) -> None:
    """A fast tokenizer with ``vocab`` words, saved into ``folder``; unknown words become ``<pad>``."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    table = {word: i for i, word in enumerate(words(vocab))}
    raw = Tokenizer(models.WordLevel(vocab=table, unk_token="<pad>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # pyright: ignore[reportAttributeAccessIssue]
    raw.decoder = decoders.WordPiece(prefix="##")  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>", unk_token="<pad>"
    )
    if chat_template is not None:
        tokenizer.chat_template = chat_template
    tokenizer.save_pretrained(folder)


def make_tiny_model(
    folder: Path,
    *,
    vocab: int = 32,
    seed: int = 0,
    layers: int = 2,
    hidden: int = 16,
    heads: int = 2,
    max_positions: int = 128,
    spread: float = 0.6,
    eos_bias: float = 0.0,
    tied: bool = False,
    dtype: torch.dtype = torch.float32,
    chat_template: str | None = CHAT_TEMPLATE,
) -> Path:
    """A random Llama with its tokenizer in ``folder``, saved as safetensors; returns ``folder``.

    ``spread`` is the standard deviation of the weights: at 0.6 the next-token laws are far from uniform.
    ``eos_bias`` makes the stop token likelier (> 0) or rarer (< 0): for an untied model its output row is
    pushed along the mean last hidden state, so the logit moves by about that much.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    folder.mkdir(parents=True, exist_ok=True)
    config = LlamaConfig(
        vocab_size=vocab,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=max(1, heads // 2),
        max_position_embeddings=max_positions,
        tie_word_embeddings=tied,
        bos_token_id=BOS,
        eos_token_id=EOS,
        pad_token_id=PAD,
    )
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" not in name:
                weight.copy_(torch.randn(weight.shape, generator=generator) * spread)
        if eos_bias and not tied:
            ids = torch.randint(3, vocab, (4, 16), generator=generator)
            mean = model.model(ids).last_hidden_state.mean((0, 1))
            model.lm_head.weight[EOS] += eos_bias * mean / mean.dot(mean)
    model.to(dtype).save_pretrained(folder)  # pyright: ignore[reportCallIssue, reportArgumentType]
    save_tiny_tokenizer(folder, vocab, chat_template)
    return folder


def make_tiny_adapter(
    folder: Path,
    model_folder: Path,
    *,
    seed: int = 0,
    rank: int = 2,
    spread: float = 0.3,
    target_modules: tuple[str, ...] = ("q_proj", "v_proj", "down_proj"),
    **options: object,
) -> Path:
    """A random PEFT LoRA folder (both factors non-zero) that fits the model in ``model_folder``.

    ``options`` go to ``peft.LoraConfig``; returns ``folder``.
    """
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(model_folder, local_files_only=True)
    lora = LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        target_modules=list(target_modules),
        **options,  # pyright: ignore[reportArgumentType]
    )
    wrapped = get_peft_model(model, lora)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in wrapped.named_parameters():
            if "lora_" in name:
                weight.copy_(torch.randn(weight.shape, generator=generator) * spread)
    wrapped.save_pretrained(str(folder), save_embedding_layers=False)
    return folder
