"""The engine on the embedded model in bfloat16, where the two passes differ by rounding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tailrisk.config import Config
from tailrisk.models.processors import processor_kind
from tailrisk.proposals import build_laws
from tailrisk.records import Prompt

pytestmark = pytest.mark.embedded


@pytest.mark.nightly
def test_self_proposal_in_bfloat16(tmp_path: Path) -> None:
    """Draws of the target weighted by scored over sampled probability: mean one, within 3 standard errors."""
    config = Config.model_validate(
        {
            "target": {"model": "smollm2", "device": "cpu", "sampling": {"max_new_tokens": 12}},
            "prompts": {"path": "none.jsonl"},
            "judge": {"kind": "refusal"},
        }
    )
    laws = build_laws(config.at(tmp_path))
    assert laws.corrected and laws.processor == processor_kind(torch.device("cpu"))
    ratios = []
    for seed, text in enumerate(("What is the capital of France?", "Say hello.")):
        prompt = Prompt(id=f"p{seed}", messages=({"role": "user", "content": text},))
        drawn = laws.sample(prompt, 0, 32, seed)
        assert drawn.finished.any()
        scored = laws.log_prob(prompt, drawn.tokens)[:, 0]
        ratios.append(np.exp(scored - drawn.log_q))
    ratio = np.concatenate(ratios)
    assert 0.01 < np.log(ratio).std() < 0.8
    assert abs(ratio.mean() - 1) < 3 * ratio.std(ddof=1) / np.sqrt(len(ratio))
