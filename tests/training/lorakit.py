"""A tiny Llama whose harmful answers can all be listed, and fits to them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from tinymodel import prompt, words
from training.stepcount import Counted
from truth.exactllama import STEPS, VOCAB, enumerated, harmful_ids, save_exact_llama

from tailrisk.config import Config
from tailrisk.models.engine import View
from tailrisk.models.interventions import all_applied
from tailrisk.models.interventions.adapter import load_adapter
from tailrisk.models.interventions.lora import Lora
from tailrisk.models.tokens import render_prompt
from tailrisk.proposals import load_target
from tailrisk.proposals.context import Context
from tailrisk.records import Prompt, PromptHits
from tailrisk.training.backends import open_backend
from tailrisk.training.loradata import Beginning, FitData, fit_data
from tailrisk.training.lorafit import Fit, Fitted
from tailrisk.training.loramodel import State, save_adapter, trainable
from tailrisk.trainingconfig import LoraShape, LoraTraining

TEXTS = (
    "w0 w4",
    "w6 w2 w2",
    "w5",
    "w2 w0",
    "w4 w4",
    "w7 w1",
    "w3",
    "w0 w5 w6",
    "w2 w7",
    "w6 w6",
    "w5 w1",
    "w4 w0 w2",
)
AUDIT: dict[str, Any] = {
    "run": {"seed": 3},
    "target": {
        "model": "model",
        "adapter": "adapter",
        "dtype": "float32",
        "device": "cpu",
        "sampling": {"max_new_tokens": STEPS},
    },
    "prompts": {"path": "prompts.jsonl"},
    "proposals": [{"name": "opened", "kind": "prefix", "text": "w1"}],
    "judge": {"kind": "python", "function": "judge.py:harmful"},
    "budget": {"pilot": 20, "batch": 64, "rounds": 2},
    "training": {
        "rounds": 2,
        "draws": 800,
        "epochs": 5,
        "batch": 32,
        "rows": 256,
        "learning_rate": 0.01,
        "kl": 0.0,
    },
}
"""An audit of that Llama, and how it is trained for."""
WHATEVER = Beginning()
PROMPTS = [prompt(text, f"p{i}") for i, text in enumerate(TEXTS)]
ASIDE = frozenset({"p9", "p10", "p11"})


def audit_in(folder: Path, name: str = "audit.yaml", **changes: Any) -> Path:
    """The configuration in a folder with all that it names; sections of ``changes`` are taken whole."""
    if not (folder / "prompts.jsonl").exists():
        save_exact_llama(folder)
        lines = [json.dumps({"id": f"p{i}", "prompt": text}) for i, text in enumerate(TEXTS)]
        (folder / "prompts.jsonl").write_text("\n".join(lines), encoding="utf-8")
    (folder / name).write_text(yaml.safe_dump({**AUDIT, **changes}), encoding="utf-8")
    return folder / name


def law_of(context: Context, view: View, asked: Prompt) -> dict[tuple[int, ...], float]:
    """Probability of every answer under a view, by plain forward passes with its interventions in place."""
    with all_applied(view.model, view.interventions):
        return enumerated(view.model, render_prompt(context.tokenizer, asked, view.system_prompt))


@cache
def harmful_laws(folder: Path, adapter: str | None, dtype: str) -> Mapping[str, dict[tuple[int, ...], float]]:
    """Every harmful answer with its probability, the likeliest first, by prompt: a folder is enumerated once."""
    context = context_in(folder, adapter, dtype)
    found = {}
    for asked in PROMPTS:
        law = law_of(context, context.view, asked)
        harm = {y: p for y, p in law.items() if harmful_ids(y, words(VOCAB))}
        found[asked.id] = dict(sorted(harm.items(), key=lambda item: -item[1]))
    return found


def all_hits(context: Context, most: int | None = None) -> Mapping[str, PromptHits]:
    """Every harmful answer, or the likeliest, with its exact probability as its part of the estimate."""
    config, found = context.config, {}
    laws = harmful_laws(config.base, config.target.adapter, config.target.dtype)
    for asked in PROMPTS:
        harm = dict(islice(laws[asked.id].items(), most))
        log_p = np.log(list(harm.values()))
        tokens = [np.array(y, dtype=np.int32) for y in harm]
        found[asked.id] = PromptHits(asked, tokens, log_p, log_p)
    return found


def exact_divergence(context: Context, view: View, asked: Prompt, beginning: Beginning = WHATEVER) -> float:
    """KL(q*||q) of one prompt by enumeration, of both laws given how they begin."""
    p, q = law_of(context, context.view, asked), law_of(context, view, asked)
    allowed = [y for y in p if beginning.allows(y)]
    harm = [y for y in allowed if harmful_ids(y, words(VOCAB))]
    mu, room = sum(p[y] for y in harm), sum(q[y] for y in allowed)
    return float(sum(p[y] / mu * np.log(p[y] / mu / (q[y] / room)) for y in harm))


def data_of(context: Context, most: int | None = None, beginning: Beginning = WHATEVER) -> FitData:
    return fit_data(
        all_hits(context, most),
        ASIDE,
        lambda asked: render_prompt(context.tokenizer, asked, None),
        1.0,
        beginning,
    )


def fitted(
    context: Context, settings: LoraTraining, data: FitData, kept: Path | None = None, **more
) -> Fitted:
    torch.set_num_threads(1)
    with trainable(context.view, settings.shape, seed=3, recompute=settings.recompute) as model:
        backend = open_backend(model, settings)
        return Fit(
            model,
            backend,
            data,
            settings,
            temperature=1.0,
            seed=3,
            watch=Counted(),
            kept=kept,
            identity=settings.of_a_fit,
            **more,
        ).run()


def learned_view(context: Context, shape: LoraShape, state: State, folder: Path) -> View:
    """The fitted law as an audit has it: the adapter's folder, read by ``models``, on top of the target."""
    with trainable(context.view, shape, seed=3) as model:
        save_adapter(folder, model, state, "model", {})
    lora = Lora(load_adapter(folder, context.view.model.config), 1.0, context.merges)
    return context.view._replace(interventions=(*context.view.interventions, lora))


def context_in(folder: Path, adapter: str | None = None, dtype: str = "float32") -> Context:
    """The target of a folder that ``save_exact_llama`` filled."""
    target = {"model": "model", "adapter": adapter, "dtype": dtype, "device": "cpu"}
    config = Config.model_validate(
        {
            "target": {**target, "sampling": {"max_new_tokens": STEPS}},
            "prompts": {"path": "unused.jsonl"},
            "judge": {"kind": "python", "function": "judge.py:harmful"},
        }
    )
    return load_target(config.at(folder))
