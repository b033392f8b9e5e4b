"""A model in which one known direction, written behind one known block, decides on the first token.

Blocks do nothing but what is planted: attention is uniform over what came before (queries and keys are zero) and
carries one feature of the user's words, ``HARM``, to every later token. Block 0 writes nothing. Block 1 writes a
harmless twin direction; block 2 takes the twin back and writes ``REFUSE``; block 3 writes twice as much of yet
another direction. So the difference of means is (nearly) the refusal direction behind block 2 alone, the twin
behind block 1, and behind the later ones a mixture, whose removal turns refusals and harmless answers around. The
output reads ``REFUSE`` for the word ``no`` and a constant for the word ``yes``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tinymodel import make_tiny_model, words
from transformers import LlamaForCausalLM

from tailrisk.records import Prompt

HIDDEN, HEADS, BLOCKS, VOCAB = 16, 2, 6, 32
CONSTANT, HARM, TWIN, REFUSE, OTHER = 0, 1, 4, 5, 6
LAYER = 2
NO, YES = "w20", "w21"
BAD = ("w3", "w4", "w5", "w6")
GOOD = ("w7", "w8", "w9", "w10")


def make_planted_model(folder: Path, *, refuses: float = 60.0) -> Path:
    """The model on disk; ``refuses`` is how strongly the output reads the refusal direction."""
    make_tiny_model(folder, vocab=VOCAB, layers=BLOCKS, hidden=HIDDEN, heads=HEADS, spread=0.0)
    model = LlamaForCausalLM.from_pretrained(folder)
    table = {word: i for i, word in enumerate(words(VOCAB))}
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        embeddings = model.model.embed_tokens.weight
        # Features 8 to 15 tell words apart and matter to nothing.
        embeddings[:, 8:] = 0.3 * torch.randn(VOCAB, 8, generator=generator)
        embeddings[:, CONSTANT] = 1.0
        for word in BAD:
            embeddings[table[word], HARM] = 1.0
        for word in GOOD:
            embeddings[table[word], HARM] = -1.0
        for layer, writes in ((1, {TWIN: 1.0}), (2, {TWIN: -1.0, REFUSE: 1.5}), (3, {OTHER: 3.0})):
            attention: Any = model.model.get_submodule(f"layers.{layer}.self_attn")
            attention.v_proj.weight[0, HARM] = 1.0
            for feature, size in writes.items():
                attention.o_proj.weight[feature, 0] = size
        model.lm_head.weight[table[NO], REFUSE] = refuses
        model.lm_head.weight[table[YES], CONSTANT] = 1.0
    model.save_pretrained(folder)
    return folder


def prompts(kind: tuple[str, ...], count: int = 12, start: int = 0) -> list[Prompt]:
    """Prompts of three words, all of one kind, no two the same, none with two values of ``start`` (0 to 4)."""
    texts = [f"{a} {b} {c}" for a in kind for b in kind for c in kind][start::5][:count]
    return [
        Prompt(id=f"{kind[0]}-{i}", messages=({"role": "user", "content": t},)) for i, t in enumerate(texts)
    ]
