"""A fit to every harmful answer of a tiny Llama: the divergence falls, and is what enumeration says it is."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tinymodel import EOS, words
from training.lorakit import (
    ASIDE,
    PROMPTS,
    all_hits,
    context_in,
    data_of,
    exact_divergence,
    fitted,
    law_of,
    learned_view,
)
from truth.exactllama import VOCAB, save_exact_llama

from tailrisk.errors import ModelError, TailriskError
from tailrisk.models.engine import View
from tailrisk.training.loradata import Beginning
from tailrisk.training.lorafit import Epoch, Fitted
from tailrisk.trainingconfig import LoraTraining

SETTINGS = LoraTraining(epochs=12, patience=2, batch=32, rows=256, learning_rate=0.01, kl=0.0)
WHOLE = SETTINGS.model_copy(update={"batch": 64})
"""For fits to every harmful answer: a pass of so small a model costs the same with more rows."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lora")
    save_exact_llama(folder)
    return folder


# The bare target is fitted to on top of a prefix below.
@pytest.mark.parametrize(
    "adapter",
    [pytest.param(None, marks=pytest.mark.nightly, id="bare"), pytest.param("adapter", id="on an adapter")],
)
def test_the_fit_comes_nearer_to_the_law_of_harm(folder: Path, tmp_path: Path, adapter: str | None):
    context = context_in(folder, adapter)
    held = [p for p in PROMPTS if p.id in ASIDE]
    before = [exact_divergence(context, context.view, p) for p in held]
    weights = {n: v.clone() for n, v in context.view.model.state_dict().items()}
    result = fitted(context, WHOLE, data_of(context))
    assert result.before == pytest.approx(np.mean(before), abs=1e-3)
    view = learned_view(context, SETTINGS.shape, result.state, tmp_path / "out")
    after = [exact_divergence(context, view, p) for p in held]
    assert result.after == pytest.approx(np.mean(after), abs=1e-3)
    assert result.after < 0.5 * result.before, result.epochs
    assert result.after == min(e.divergence for e in result.epochs)
    for asked in held:
        assert sum(law_of(context, view, asked).values()) == pytest.approx(1.0, abs=1e-5)
    now = context.view.model.state_dict()
    assert now.keys() == weights.keys() and all(torch.equal(now[n], v) for n, v in weights.items())


W1, W2 = (words(VOCAB).index(w) for w in ("w1", "w2"))
SHUT = Beginning(
    avoided=((EOS,), *((i,) for i in range(6, VOCAB) if i not in (W1, W2)), (W2, W2), (W2, W1, EOS), (W1, W2))
)
"""Harm begins with w1; shut out are answers that begin otherwise, and one kind that harms."""


@pytest.mark.parametrize(
    "beginning", [SHUT, Beginning(opening=(W1,))], ids=["openings shut out", "an opening forced"]
)
def test_on_top_of_a_prefix_the_fit_is_of_what_it_leaves(folder: Path, tmp_path: Path, beginning: Beginning):
    context = context_in(folder)
    data = data_of(context, beginning=beginning)
    hits = all_hits(context).values()
    parts = [
        [np.exp(p) * beginning.allows(tuple(t)) for p, t in zip(h.log_p, h.tokens, strict=True)] for h in hits
    ]
    outside = 1 - np.mean(
        [np.sum(inside) / np.exp(h.log_estimate) for inside, h in zip(parts, hits, strict=True)]
    )
    assert data.outside == pytest.approx(outside, abs=1e-9) and (outside > 0.01) == (beginning is SHUT)
    held = [p for p in PROMPTS if p.id in ASIDE]
    before = [exact_divergence(context, context.view, p, beginning) for p in held]
    steady = WHOLE.model_copy(update={"learning_rate": 0.006, "patience": 4})
    result = fitted(context, steady, data)
    assert result.before == pytest.approx(np.mean(before), abs=1e-3)
    view = learned_view(context, SETTINGS.shape, result.state, tmp_path / "out")
    after = [exact_divergence(context, view, p, beginning) for p in held]
    assert result.after == pytest.approx(np.mean(after), abs=1e-3)
    # How far it gets differs between processors, which round differently: 0.44 and 0.50 were seen.
    assert result.after < 0.6 * result.before, result.epochs


def test_what_the_prefix_takes_care_of_is_not_learned_again(folder: Path, tmp_path: Path):
    """Without the prefix, the law that was fitted on top of one still begins as the target does, or nearly so."""
    context = context_in(folder)
    held = [p for p in PROMPTS if p.id in ASIDE]

    def shut_out(view: View) -> float:
        laws = [law_of(context, view, p) for p in held]
        return float(np.mean([sum(p for y, p in law.items() if not SHUT.allows(y)) for law in laws]))

    views, few = [context.view], SETTINGS.model_copy(update={"epochs": 5})
    for i, beginning in enumerate((SHUT, Beginning())):
        state = fitted(context, few, data_of(context, most=60, beginning=beginning)).state
        views.append(learned_view(context, SETTINGS.shape, state, tmp_path / str(i)))
    target, on_prefix, alone = map(shut_out, views)
    assert target > 0.5 > alone and target - on_prefix < 0.5 * (target - alone)


def test_a_fit_goes_on_where_it_was_cut(folder: Path, tmp_path: Path):
    context = context_in(folder)
    data, settings = data_of(context, most=40), SETTINGS.model_copy(update={"epochs": 3, "patience": 3})
    whole = fitted(context, settings, data)

    def stop(epoch: Epoch) -> None:
        if epoch.number == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fitted(context, settings, data, tmp_path, after_epoch=stop)
    assert [f.name for f in tmp_path.glob("epoch-*")] == ["epoch-2"]
    told: list[int] = []
    again = fitted(context, settings, data, tmp_path, after_epoch=lambda e: told.append(e.number))
    assert told == [3]
    assert [e[:3] for e in again.epochs] == [e[:3] for e in whole.epochs]
    assert all(torch.equal(again.state[n], v) for n, v in whole.state.items())
    other = settings.model_copy(update={"learning_rate": 0.001})
    assert len(fitted(context, other, data, tmp_path).epochs) == 4, "another fit begins anew"
    assert fitted(context, other, data, tmp_path).epochs[0].loss is None


def test_the_anchor_holds_late_tokens_to_the_base(folder: Path):
    """With a heavy anchor on all tokens the law hardly moves; on late ones alone it still does."""
    context = context_in(folder)
    data = data_of(context, most=60)

    def after(**changes) -> Fitted:
        return fitted(context, SETTINGS.model_copy(update={"epochs": 4, **changes}), data)

    free, held, late = after(), after(kl=300.0, kl_after=0), after(kl=300.0, kl_after=2)
    assert held.after > 0.8 * held.before
    assert free.after < late.after < held.after


def test_recomputing_changes_nothing(folder: Path, monkeypatch):
    """The target's own adapter and the fit's are in place when activations are computed again."""
    from torch.utils import checkpoint

    used: list[int] = []
    whole = checkpoint.checkpoint
    monkeypatch.setattr(
        "transformers.modeling_utils.checkpoint", lambda *a, **k: (used.append(1), whole(*a, **k))[1]
    )
    context = context_in(folder, "adapter", dtype="float64")
    data, settings = data_of(context, most=20), SETTINGS.model_copy(update={"epochs": 1})
    plain = fitted(context, settings, data)
    assert not used
    again = fitted(context, settings.model_copy(update={"recompute": True}), data)
    assert used, "nothing was recomputed"
    assert [e.divergence for e in again.epochs] == pytest.approx(
        [e.divergence for e in plain.epochs], rel=1e-9
    )
    assert not context.view.model.is_gradient_checkpointing


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"learning_rate": 1e30}, "lower training.learning_rate"),
        ({"shape": {"modules": ["no_proj"]}}, "finds none"),
    ],
)
def test_what_cannot_be_fitted_says_what_to_do(folder: Path, changes, words):
    context = context_in(folder)
    settings = LoraTraining.model_validate({**SETTINGS.model_dump(), **changes})
    with pytest.raises(TailriskError, match=words):
        fitted(context, settings, data_of(context, most=20))
    plain = context_in(folder).view.model
    assert [n for n, _ in context.view.model.named_modules()] == [n for n, _ in plain.named_modules()]


def test_want_of_memory_is_told_in_words(folder: Path, monkeypatch):
    def out_of_memory(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    context = context_in(folder)
    data = data_of(context, most=20)
    monkeypatch.setattr("tailrisk.training.lorafit.pass_loss", out_of_memory)
    with pytest.raises(ModelError, match=r"passes of 256 answers; lower training\.rows"):
        fitted(context, SETTINGS, data)
