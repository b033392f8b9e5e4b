"""Prompts are read once, and what was read for one prompt or view serves no other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tinymodel import EOS, make_tiny_model
from transformers import AutoModelForCausalLM

from tailrisk.models.engine import Body, View, body_of
from tailrisk.models.interventions.addition import Addition
from tailrisk.models.prefill import Prefills
from tailrisk.models.sampling import Limits, Part, Phase, sample
from tailrisk.models.scoring import next_token_log_probs, token_log_probs
from tailrisk.models.warp import Warp

PROMPTS = (1, 5, 6, 7, 8), (1, 9, 4), (1, 5, 6, 7)
LIMITS = Limits(8, (EOS,), Warp(0.8))


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> tuple[View, View]:
    folder: Path = make_tiny_model(
        tmp_path_factory.mktemp("tiny") / "model", vocab=32, spread=0.4, eos_bias=1.5
    )
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64, attn_implementation="sdpa")
    model.eval().requires_grad_(False)
    body_of(model)  # checks the layout by a pass of its own
    push = torch.full((model.config.hidden_size,), 0.3, dtype=torch.float64)
    return View(model), View(model, (Addition({0: push}, 1.0, "prompt"),), name="pushed")


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Lengths of all passes that begin at the first position."""
    seen: list[int] = []
    own = Body.hidden

    def hidden(self, ids, start, cache, mask=None):
        if isinstance(start, int) and start == 0:
            seen.append(ids.shape[1])
        return own(self, ids, start, cache, mask)

    monkeypatch.setattr(Body, "hidden", hidden)
    return seen


def both(view: View, prompt: tuple[int, ...], prefills: Prefills | None):
    phases = [Phase(LIMITS.max_new_tokens, (Part(view, prompt),))]
    drawn = sample(phases, LIMITS, 20, 3, prefills=prefills)
    scored = token_log_probs(view, prompt, drawn.tokens, LIMITS.warp, prefills=prefills)
    return drawn, scored


def test_the_same_draws_and_scores_from_kept_prefills(views, passes: list[int]) -> None:
    kept = Prefills()
    for _ in range(2):
        for view in views:
            for prompt in PROMPTS:
                drawn, scored = both(view, prompt, kept)
                fresh, own = both(view, prompt, None)
                assert all(np.array_equal(a, b) for a, b in zip(drawn.tokens, fresh.tokens, strict=True))
                assert np.array_equal(drawn.log_q, fresh.log_q)
                assert all(np.array_equal(a, b) for a, b in zip(scored.tokens, own.tokens, strict=True))
                assert np.allclose(drawn.log_q, [p.sum() for p in scored.tokens], atol=1e-12)
    # Four for each combination without keeping, and one once with it.
    assert len(passes) == (4 + 1) * 2 * len(PROMPTS)


def test_what_does_not_fit_the_limit_is_read_again(views, passes: list[int]) -> None:
    view = views[0]
    one = Prefills()
    size = one.read(body_of(view.model), view, PROMPTS[0]).cache.size
    assert size > 0
    for limit, expected in ((2 * size, 2), (size, 6), (0, 6)):
        kept = Prefills(limit)
        passes.clear()
        for _ in range(3):
            for prompt in (PROMPTS[0], (1, 8, 7, 6, 5)):
                both(view, prompt, kept)
        # Without room for the two, each prompt pushes the other one out; without any, scoring reads again too.
        assert len(passes) == (expected if limit else 2 * expected)


@pytest.mark.parametrize("which", [0, 1])
def test_laws_of_the_next_token(views, which: int) -> None:
    view, texts = views[which], [(), (4,), (9, 3, 2)]
    laws = next_token_log_probs(view, PROMPTS[0], texts, LIMITS.warp, where="here", prefills=Prefills())
    every = [np.array([*text, token], dtype=np.int32) for text in texts for token in range(32)]
    scored = token_log_probs(view, PROMPTS[0], every, LIMITS.warp).tokens
    assert np.allclose(np.concatenate(laws), [p[-1] for p in scored], atol=1e-12)
    assert np.allclose([np.exp(law).sum() for law in laws], 1.0)
