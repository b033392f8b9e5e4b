"""Real processes that share a fit by gloo: the same losses, and the same adapter, as one process alone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from training.lorakit import all_hits, context_in, data_of, fitted, learned_view
from truth.exactllama import save_exact_llama

from tailrisk.errors import ConfigError
from tailrisk.models.scoring import token_log_probs
from tailrisk.models.tokens import render_prompt
from tailrisk.training.backends.zero import check_deepspeed, deepspeed_options
from tailrisk.trainingconfig import LoraTraining

WORKER = Path(__file__).parent / "lora_worker.py"
SETTINGS = LoraTraining(epochs=2, patience=2, batch=24, rows=5, learning_rate=0.003, kl=0.1, kl_after=1)
SHARED = {
    "ddp": {"backend": "ddp"},
    "zero-2": {"backend": "deepspeed", "zero": 2},
    "zero-3": {"backend": "deepspeed", "zero": 3},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("backends")
    save_exact_llama(folder)
    return folder


@pytest.fixture(scope="module")
def alone(folder: Path):
    context = context_in(folder, dtype="float64")
    return fitted(context, SETTINGS, data_of(context, most=10))


def run(folder: Path, out: Path, settings: LoraTraining) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    world = settings.workers
    Path(f"{out}.store").unlink(missing_ok=True)
    environment = os.environ | {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
    workers = [
        subprocess.Popen(
            [
                sys.executable,
                str(WORKER),
                str(folder),
                str(out),
                settings.model_dump_json(),
                str(r),
                str(world),
            ],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for r in range(world)
    ]
    told = [w.communicate(timeout=400)[0] for w in workers]
    assert all(w.returncode == 0 for w in workers), "\n".join(told)[-4000:]
    return json.loads(Path(f"{out}.json").read_text()), load_file(f"{out}.safetensors")


def scores(context, state, folder: Path) -> np.ndarray:
    """Log-probabilities of every harmful answer under an adapter, as ``models`` loads and scores it."""
    view = learned_view(context, SETTINGS.shape, state, folder)
    found = []
    for hits in all_hits(context, most=10).values():
        ids = render_prompt(context.tokenizer, hits.prompt, None)
        found += [float(t.sum()) for t in token_log_probs(view, ids, hits.tokens).tokens]
    return np.array(found)


@pytest.mark.slow
@pytest.mark.parametrize("name", SHARED)
def test_two_processes_fit_the_same_adapter(name: str, folder: Path, tmp_path: Path, alone):
    settings = LoraTraining.model_validate({**SETTINGS.model_dump(), **SHARED[name], "workers": 2})
    if settings.backend == "deepspeed" and shutil.which("g++") is None:
        pytest.skip("DeepSpeed compiles its communication on CPUs, and there is no C++ compiler")
    told, state = run(folder, tmp_path / "out", settings)
    assert told["best"] == alone.best
    # DeepSpeed computes in float32 where the others have float64; Adam makes more of the difference.
    slack = 1e-3 if settings.backend == "deepspeed" else 1e-9
    for epoch, own in zip(told["epochs"], alone.epochs, strict=True):
        assert epoch[0] == own.number
        assert epoch[1] == (None if own.loss is None else pytest.approx(own.loss, rel=slack))
        assert epoch[2] == pytest.approx(own.divergence, rel=slack)
    assert state.keys() == alone.state.keys()
    context = context_in(folder, dtype="float64")
    scored = [scores(context, s, tmp_path / f"adapter-{i}") for i, s in enumerate((state, alone.state))]
    assert np.abs(scored[0] - scored[1]).max() < 100 * slack
    if settings.zero == 3 and settings.backend == "deepspeed":
        return  # as with stage 2
    # What was kept is found again: nothing is left to do.
    began = {f.name for f in tmp_path.glob("out.kept/epoch-*")}
    again, _ = run(folder, tmp_path / "out", settings)
    assert again == told and began == {"epoch-2"}


def test_what_deepspeed_lacks_is_named(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ConfigError, match="no C\\+\\+ compiler: install g\\+\\+, or take the backend 'ddp'"):
        check_deepspeed()
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
