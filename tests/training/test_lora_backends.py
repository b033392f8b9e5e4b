"""Real processes that fit by gloo: the same losses, and the same adapter, as plain torch in one process."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from training.lorakit import all_hits, context_in, data_of, fitted, learned_view
from truth.exactllama import save_exact_llama

from tailrisk.errors import ConfigError
from tailrisk.models.interventions.lora import Lora
from tailrisk.models.scoring import token_log_probs
from tailrisk.models.tokens import render_prompt
from tailrisk.training.backends.zero import check_deepspeed, deepspeed_options
from tailrisk.training.lorafit import Fitted
from tailrisk.training.loramodel import State
from tailrisk.trainingconfig import LoraTraining

WORKER = Path(__file__).parent / "lora_worker.py"
# Gradients have norms of 7 to 16 here: the default clipping is at work in every step.
SETTINGS = LoraTraining(epochs=2, patience=2, batch=24, rows=8, learning_rate=0.003, kl=0.1, kl_after=1)
SHARED = {
    "ddp": {"backend": "ddp"},
    "zero-2": {"backend": "deepspeed", "zero": 2},
    "zero-3": {"backend": "deepspeed", "zero": 3},
}
STAGES = (0, 1, 2, 3)
OPTIONS = sorted((Path(__file__).parents[2] / "clusters" / "deepspeed").glob("*.json"))


class Told(NamedTuple):
    """A fit by other processes: ``epochs`` of number, loss and divergence; ``made``: those that were not kept ones."""

    epochs: list[tuple[int, float | None, float]]
    best: int
    made: list[int]
    state: State


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("backends")
    save_exact_llama(folder)
    return folder


@pytest.fixture(scope="module")
def data(folder: Path) -> Path:
    """A pickle of what all fits are fitted to."""
    path = folder / "data.pickle"
    path.write_bytes(pickle.dumps(data_of(context_in(folder, dtype="float64"), most=6)))
    return path


@pytest.fixture(scope="module")
def alone(folder: Path, data: Path) -> Callable[[str], Fitted]:
    """The fit by plain torch, by dtype."""
    examples = pickle.loads(data.read_bytes())
    return cache(lambda dtype: fitted(context_in(folder, dtype=dtype), SETTINGS, examples))


@pytest.fixture(scope="module")
def scores(folder: Path) -> Callable[[State, Path], np.ndarray]:
    """Log-probabilities of every harmful answer under an adapter, as ``models`` loads and scores it."""
    context = context_in(folder, dtype="float64")

    def score(state: State, out: Path) -> np.ndarray:
        view = learned_view(context, SETTINGS.shape, state, out)
        found = []
        for hits in all_hits(context, most=10).values():
            ids = render_prompt(context.tokenizer, hits.prompt, None)
            found += [float(t.sum()) for t in token_log_probs(view, ids, hits.tokens).tokens]
        return np.array(found)

    return score


def fit_of(
    name: str, changes: dict[str, Any], kept: str | None = None, until: int | None = None
) -> dict[str, Any]:
    settings = LoraTraining.model_validate({**SETTINGS.model_dump(), **changes})
    return {"name": name, "settings": settings.model_dump(mode="json"), "kept": kept or name, "until": until}


@pytest.fixture(scope="module")
def told(folder: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Told]:
    """Fits by name, on a machine that can compile nothing.

    By two processes: whole ones; ``again``, those that are there already; ``cut``, those that were stopped after an
    epoch and went on in other processes. By one process: all stages, and all files of DeepSpeed's options.
    """
    out = tmp_path_factory.mktemp("told")
    by_two = {name: {**changes, "workers": 2} for name, changes in SHARED.items()}
    by_one = {f"one-zero-{stage}": {"backend": "deepspeed", "zero": stage} for stage in STAGES}
    by_one |= {path.stem: {"backend": "deepspeed", "deepspeed": str(path)} for path in OPTIONS}
    cut = [fit_of(f"{name} cut", by_two[name], until=1) for name in by_two]
    jobs = [
        {"world": 2, "fits": [*(fit_of(name, by_two[name]) for name in by_two), *cut]},
        {
            "world": 2,
            "fits": [
                *(fit_of(f"{name} again", by_two[name], kept=name) for name in by_two),
                *({**fit, "until": None} for fit in cut),
            ],
        },
        {"world": 1, "fits": [fit_of(name, by_one[name]) for name in by_one]},
        {"world": 1, "fits": [fit_of("one-zero-0 cut", by_one["one-zero-0"], until=1)]},
        {"world": 1, "fits": [fit_of("one-zero-0 cut", by_one["one-zero-0"])]},
    ]
    compiled = out / "compiled"
    lacks = {"CXX": "no-such-compiler", "PATH": "/nowhere", "TORCH_EXTENSIONS_DIR": str(compiled)}
    done = subprocess.run(
        [sys.executable, str(WORKER), str(folder), str(data), str(out), json.dumps(jobs)],
        env=os.environ | {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"} | lacks,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert not compiled.exists()
    found = {}
    for path in out.glob("*.json"):
        parts = json.loads(path.read_text())
        epochs = [tuple(epoch) for epoch in parts["epochs"]]
        found[path.stem] = Told(
            epochs, parts["best"], parts["made"], load_file(path.with_suffix(".safetensors"))
        )
    return found


def check_alike(found: Told, own: Fitted, slack: float) -> None:
    assert found.best == own.best
    for epoch, like in zip(found.epochs, own.epochs, strict=True):
        assert epoch[0] == like.number
        assert epoch[1] == (None if like.loss is None else pytest.approx(like.loss, rel=slack))
        assert epoch[2] == pytest.approx(like.divergence, rel=slack)
    assert found.state.keys() == own.state.keys()


@pytest.mark.nightly
@pytest.mark.parametrize("name", SHARED)
def test_two_processes_fit_the_same_adapter(name: str, tmp_path: Path, alone, scores, told):
    # DeepSpeed has no float64; Adam makes more of the difference.
    dtype, slack = ("float64", 1e-9) if name == "ddp" else ("float32", 1e-4)
    own = alone(dtype)
    check_alike(told[name], own, slack)
    scored = [scores(s, tmp_path / f"adapter-{i}") for i, s in enumerate((told[name].state, own.state))]
    assert np.abs(scored[0] - scored[1]).max() < 100 * slack


@pytest.mark.nightly
def test_stages_2_and_3_lose_the_same_by_two_processes(told):
    losses = [[epoch[1:] for epoch in told[f"zero-{stage}"].epochs[1:]] for stage in (2, 3)]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)


@pytest.mark.nightly
@pytest.mark.parametrize(
    "name", [*(f"one-zero-{stage}" for stage in STAGES), *(path.stem for path in OPTIONS)]
)
def test_one_process_of_deepspeed_loses_what_plain_torch_does(name: str, alone, told):
    check_alike(told[name], alone("float32"), 1e-4)


@pytest.mark.nightly
@pytest.mark.parametrize("name", SHARED)
def test_a_shared_fit_that_is_done_is_found_again(name: str, told):
    again = told[f"{name} again"]
    assert again.made == []
    check_equal(again, told[name])


@pytest.mark.nightly
@pytest.mark.parametrize("name", [*SHARED, "one-zero-0"])
def test_other_processes_go_on_where_a_fit_was_cut(name: str, told):
    resumed = told[f"{name} cut"]
    assert resumed.made == [2]
    check_equal(resumed, told[name])


def check_equal(found: Told, like: Told) -> None:
    assert (found.epochs, found.best) == (like.epochs, like.best)
    assert found.state.keys() == like.state.keys()
    assert all(torch.equal(found.state[n], v) for n, v in like.state.items())


@pytest.mark.nightly
@pytest.mark.parametrize("name", [*SHARED, *(f"one-zero-{stage}" for stage in STAGES)])
def test_the_adapter_that_is_read_has_the_fitted_factors_bit_by_bit(
    name: str, folder: Path, tmp_path: Path, told
):
    state = told[name].state
    lora = learned_view(context_in(folder), SETTINGS.shape, state, tmp_path).interventions[-1]
    assert isinstance(lora, Lora)
    read = {
        f"base_model.model.{place}.lora_{side}.weight": factor["default"].weight
        for place, layer in lora.adapter.layers.items()
        for side, factor in (("A", layer.lora_A), ("B", layer.lora_B))
    }
    assert read.keys() == state.keys()
    for place, factor in read.items():
        assert torch.equal(factor.view(torch.int32), state[place].view(torch.int32)), place


def test_that_deepspeed_is_not_there_is_said(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install 'lm-tailrisk"):
        check_deepspeed()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("not json", "cannot be read as JSON"),
        ("{}", "has no zero_optimization"),
        ('{"zero_optimization": {"stage": 2}, "optimizer": {"type": "AdamW"}}', "sets optimizer"),
    ],
)
def test_options_of_deepspeed_that_cannot_be_used(tmp_path: Path, text: str, words: str):
    path = tmp_path / "zero.json"
    path.write_text(text)
    settings = LoraTraining(backend="deepspeed", workers=2, deepspeed=str(path))
    with pytest.raises(ConfigError, match=words):
        deepspeed_options(settings)
