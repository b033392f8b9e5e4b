"""A real transformer, end to end, against the truth by enumeration: the whole audit is unbiased.

A tiny random Llama answers with at most four tokens. The truth comes from plain forward passes of
``transformers`` over every possible response, not from the engine under test.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from tinymodel import EOS, words
from truth.exactllama import STEPS, VOCAB, audited, enumerated, harmful_ids, save_exact_llama

from tailrisk.config import Config
from tailrisk.proposals import build_laws
from tailrisk.records import Prompt


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exact")
    save_exact_llama(folder)
    return folder


def config_in(folder: Path) -> Config:
    return Config.model_validate(
        {
            "target": {
                "model": "model",
                "dtype": "float32",
                "device": "cpu",
                "sampling": {"max_new_tokens": STEPS},
            },
            "prompts": {"path": "unused.jsonl"},
            "proposals": [
                {"name": "tuned", "kind": "lora", "adapter": "adapter", "scale": 0.5, "mix": 0.5},
                {"name": "opened", "kind": "prefix", "text": "w1"},
            ],
            "judge": {"kind": "python", "function": "judge.py:harmful"},
            "budget": {"draws": 1600, "pilot": 144, "batch": 256, "rounds": 2, "target_share": 0.3},
            "stop": {"log_width": 0.75},
        }
    ).at(folder)


@pytest.mark.slow
def test_the_whole_audit_is_unbiased(folder: Path):
    """24 audits: their cost is that of their batches, so more draws in each see more of a bias in the laws than more
    audits would. What adapting to results may do to small audits, the toys see, whose audits cost next to nothing."""
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)
    config = config_in(folder)
    prompts = [
        Prompt(id="one", messages=({"role": "user", "content": "w0 w4"},)),
        Prompt(id="two", messages=({"role": "user", "content": "w6 w2 w2"},)),
    ]
    laws = build_laws(config)
    plain = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32).eval()
    truth = []
    for prompt in prompts:
        law = enumerated(plain, laws.prompt_ids(prompt, laws.target.view))
        assert sum(law.values()) == pytest.approx(1.0, abs=1e-6)
        harm = {y: p for y, p in law.items() if harmful_ids(y, words(VOCAB))}
        early = sum(p for y, p in harm.items() if y[-1] == EOS)
        truth.append(sum(harm.values()))
        assert 1e-4 < truth[-1] < 3e-2, truth
        assert early > 0.15 * truth[-1], "answers that stop early must matter"

    ratios = audited(config, prompts, 24) / truth
    z = (ratios.mean(axis=0) - 1) / (ratios.std(axis=0, ddof=1) / np.sqrt(len(ratios)))
    assert np.abs(z).max() < 3.0, (truth, ratios.mean(axis=0), z)
    # Far better than plain sampling with as many draws, so that 3 standard errors are a sharp test.
    monte_carlo = np.sqrt((1 - np.array(truth)) / (800 * np.array(truth)))
    assert (ratios.std(axis=0, ddof=1) < 0.75 * monte_carlo).all(), (ratios.std(axis=0), monte_carlo)


def test_every_response_has_the_enumerated_probability(folder: Path):
    """The target's own log-probabilities, and so the weights' numerator, for all responses at once."""
    from transformers import AutoModelForCausalLM

    laws = build_laws(config_in(folder))
    prompt = Prompt(id="one", messages=({"role": "user", "content": "w0 w4"},))
    plain = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32).eval()
    law = enumerated(plain, laws.prompt_ids(prompt, laws.target.view))
    some = list(itertools.islice(law.items(), 0, None, 37))
    log_q = laws.log_prob(prompt, [np.array(y, dtype=np.int32) for y, _ in some])
    assert log_q[:, 0] == pytest.approx(np.log([p for _, p in some]), abs=1e-4)
