"""Sampling and scoring of pure views: against products of conditionals, each other, and in trouble."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tinymodel import EOS, make_tiny_model
from transformers import AutoModelForCausalLM

from tailrisk.errors import ModelError
from tailrisk.models.engine import Stage, View, body_of
from tailrisk.models.sampling import Limits, Part, Phase, sample
from tailrisk.models.scoring import Chunks, token_log_probs
from tailrisk.models.warp import Warp, token_law

PROMPT = (1, 5, 6, 7, 8)
LIMITS = Limits(10, (EOS,))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("tiny") / "model", vocab=32, spread=0.4, eos_bias=1.5)


def load(folder: Path, dtype: torch.dtype = torch.float32):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="sdpa")
    return model.eval().requires_grad_(False)


def phases(view: View, limits: Limits = LIMITS) -> list[Phase]:
    return [Phase(limits.max_new_tokens, (Part(view, PROMPT),))]


def brute(model, response: np.ndarray, warp: Warp = Warp()) -> np.ndarray:  # noqa: B008
    """Each token's log-probability from a forward pass of its own, no cache, no sharing."""
    ids, out = list(PROMPT), []
    for token in response.tolist():
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[:, -1].double()
        out.append(token_law(logits, warp, "").log_prob(torch.tensor([0]), torch.tensor([token])).item())
        ids.append(token)
    return np.array(out)


@pytest.mark.parametrize("warp", [Warp(), Warp(0.8, 0.95, 20)])
@pytest.mark.parametrize(("dtype", "slack"), [(torch.float32, 1e-5), (torch.float64, 1e-11)])
def test_sampling_and_scoring_are_products_of_conditionals(
    folder: Path, warp: Warp, dtype: torch.dtype, slack: float
) -> None:
    model = load(folder, dtype)
    limits = LIMITS._replace(warp=warp)
    drawn = sample(phases(View(model), limits), limits, 40, 11)
    assert 0 < drawn.finished.sum() < 40
    scored = token_log_probs(View(model), PROMPT, drawn.tokens, warp)
    for i, tokens in enumerate(drawn.tokens):
        want = brute(model, tokens, warp)
        assert abs(drawn.log_q[i] - want.sum()) < slack
        assert abs(scored.tokens[i].sum() - want.sum()) < slack
        assert np.abs(scored.tokens[i] - want).max() < slack


def test_nothing_follows_the_stop_token_and_its_factor_counts(folder: Path) -> None:
    drawn = sample(phases(View(load(folder))), LIMITS, 64, 3)
    for tokens, finished in zip(drawn.tokens, drawn.finished, strict=True):
        assert tokens.dtype == np.int32
        assert EOS not in tokens[:-1]
        assert (tokens[-1] == EOS) == finished
        assert finished or len(tokens) == LIMITS.max_new_tokens


def test_same_seed_same_tokens_whoever_shares(folder: Path) -> None:
    view = View(load(folder))
    one, two = (sample(phases(view), LIMITS, 48, 9) for _ in range(2))
    alone = sample(phases(view), LIMITS, 48, 9, share=False)
    other = sample(phases(view), LIMITS, 48, 10)
    assert all(np.array_equal(a, b) for a, b in zip(one.tokens, two.tokens, strict=True))
    assert np.array_equal(one.log_q, two.log_q)
    assert all(np.array_equal(a, b) for a, b in zip(one.tokens, alone.tokens, strict=True))
    assert np.allclose(one.log_q, alone.log_q, atol=1e-5)
    assert any(not np.array_equal(a, b) for a, b in zip(one.tokens, other.tokens, strict=True))


def test_frequencies_of_first_tokens(folder: Path) -> None:
    model = load(folder)
    n, limits = 20_000, Limits(1, (EOS,))
    drawn = sample(phases(View(model), limits), limits, n, 4)
    counts = np.bincount(np.concatenate(drawn.tokens), minlength=32)
    with torch.no_grad():
        p = torch.softmax(model(torch.tensor([PROMPT])).logits[0, -1].double(), -1).numpy()
    assert np.all(np.abs(counts - n * p) < 5 * np.sqrt(n * p * (1 - p)) + 1)


@pytest.mark.parametrize("chunks", [Chunks(1, 1, 1, 1), Chunks(3, 7, 5, 2), Chunks(500, 900, 900, 900)])
def test_scores_do_not_depend_on_the_pieces(folder: Path, chunks: Chunks) -> None:
    view = View(load(folder, torch.float64))
    drawn = sample(phases(view), LIMITS, 30, 8)
    usual = token_log_probs(view, PROMPT, drawn.tokens)
    other = token_log_probs(view, PROMPT, drawn.tokens, chunks=chunks)
    for a, b in zip(usual.tokens, other.tokens, strict=True):
        assert np.allclose(a, b, atol=1e-12)
    assert np.allclose(usual.first, other.first, atol=1e-12)
    assert np.exp(usual.first).sum() == pytest.approx(1.0)


def test_half_precision_draws_are_unbiased_for_the_scored_law(folder: Path) -> None:
    view = View(load(folder, torch.bfloat16))
    drawn = sample(phases(view), LIMITS, 4000, 21)
    scored = token_log_probs(view, PROMPT, drawn.tokens)
    ratio = np.exp([s.sum() for s in scored.tokens] - drawn.log_q)
    assert ratio.std() > 0
    assert abs(ratio.mean() - 1) < 3 * ratio.std() / np.sqrt(len(ratio))


def test_non_finite_logits_stop_sampling_and_scoring(folder: Path) -> None:
    model = load(folder)
    drawn = sample(phases(View(model)), LIMITS, 8, 1)
    rows = model.model.embed_tokens.weight
    token = int(np.concatenate([t[:-1] for t in drawn.tokens])[0])
    rows.data[token] = float("nan")
    with pytest.raises(ModelError, match=r"non-finite logits at token \d+ of prompt 'x'"):
        sample(phases(View(model)), LIMITS, 8, 1, where="prompt 'x'")
    with pytest.raises(ModelError, match=r"non-finite logits at token \d+ .*of prompt 'x'"):
        token_log_probs(View(model), PROMPT, drawn.tokens, where="prompt 'x'")


def test_ids_and_lengths_that_do_not_fit_are_refused(folder: Path) -> None:
    view = View(load(folder))
    for bad in (32, -1):
        with pytest.raises(ModelError, match=f"token id {bad} is outside"):
            token_log_probs(view, PROMPT, [np.array([3, bad], dtype=np.int32)])
    long = LIMITS._replace(max_new_tokens=124)
    with pytest.raises(ModelError, match="do not fit the model's 128 positions"):
        sample(phases(view, long), long, 2, 1)


def test_out_of_memory_halves_the_work(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    view = View(load(folder))
    whole = sample(phases(view), LIMITS, 12, 6)
    scored = token_log_probs(view, PROMPT, whole.tokens)
    body, seen = body_of(view.model), []
    honest = type(body).hidden

    def small(self, ids, start, cache, mask=None):
        seen.append(ids.shape[0] * ids.shape[1])
        if seen[-1] > 8:
            raise torch.cuda.OutOfMemoryError("no room")
        return honest(self, ids, start, cache, mask)

    monkeypatch.setattr(type(body), "hidden", small)
    again = sample(phases(view), LIMITS, 12, 6)
    assert max(seen) > 8
    assert all(np.array_equal(a, b) for a, b in zip(whole.tokens, again.tokens, strict=True))
    short = [t[:7] for t in whole.tokens]
    pieces = token_log_probs(view, PROMPT, short)
    for a, b in zip(scored.tokens, pieces.tokens, strict=True):
        assert np.allclose(a[:7], b, atol=1e-5)


def test_the_model_is_left_as_it_was(folder: Path) -> None:
    model = load(folder)
    before = model.config._attn_implementation
    with pytest.raises(RuntimeError, match="stop"), Stage() as stage:
        stage.show(View(model))
        assert model.config._attn_implementation != before
        raise RuntimeError("stop")
    assert model.config._attn_implementation == before
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()


def test_unknown_heads_and_layers_are_refused(folder: Path) -> None:
    model = load(folder)
    honest = model.forward
    model.forward = lambda **k: type("Out", (), {"logits": honest(**k).logits * 1.5})()
    with pytest.raises(ModelError, match="does something to its logits"):
        body_of(model)
    model = load(folder)
    model.config.layer_types = ["full_attention", "linear_attention"]
    with pytest.raises(ModelError, match="linear_attention"):
        body_of(model)


@pytest.mark.parametrize(
    "kind", ["Qwen2", "Gemma2", "Mistral", "Qwen3", "Olmo2", "Phi3", "Granite", "Cohere"]
)
def test_other_architectures(kind: str) -> None:
    """Softcaps, scaled logits, sliding windows, other norms: sampling, scoring and the model itself agree."""
    import transformers

    options = {
        "vocab_size": 24,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "head_dim": 4,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "attn_implementation": "sdpa",
        **({"logits_scaling": 4.0} if kind == "Granite" else {}),
    }
    torch.manual_seed(1)
    config = getattr(transformers, f"{kind}Config")(**options)
    model = getattr(transformers, f"{kind}ForCausalLM")(config).eval().requires_grad_(False)
    for weight in model.parameters():
        if weight.dim() == 2:
            weight.mul_(10)
    drawn = sample(phases(View(model)), LIMITS, 12, 2)
    scored = token_log_probs(View(model), PROMPT, drawn.tokens)
    for i, tokens in enumerate(drawn.tokens):
        want = brute(model, tokens).sum()
        assert drawn.log_q[i] == pytest.approx(want, abs=1e-4)
        assert scored.tokens[i].sum() == pytest.approx(want, abs=1e-4)
    if kind == "Mistral":
        model.config.sliding_window = 12
        with pytest.raises(ModelError, match="attention window of 12"):
            sample(phases(View(model)), LIMITS, 2, 2)
