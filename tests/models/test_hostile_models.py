"""Files made to run code: nothing runs, and the message names the file.

Every payload would create a canary file; loading happens in a child process with stdin closed, so a question
on stdin would end in an error too.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tinymodel import prompt

from tailrisk.errors import ModelError
from tailrisk.models.directions import load_direction
from tailrisk.models.interventions.adapter import load_adapter
from tailrisk.models.loading import load_config, load_model, load_tokenizer, resolve_model
from tailrisk.models.tokens import reads_system_prompt, render_prompt


class Payload:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self):
        return (Path.touch, (self.canary,))


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    return tmp_path / "canary"


def pickles(canary: Path) -> dict[str, bytes]:
    path = canary.parent / "made.pt"
    torch.save({"direction": torch.ones(4), "x": Payload(canary)}, path)
    return {"zip": path.read_bytes(), "plain": pickle.dumps({"w": Payload(canary)})}


def test_the_payload_itself_works(canary: Path) -> None:
    pickle.loads(pickles(canary)["plain"])
    assert canary.exists()


@pytest.mark.parametrize("kind", ["zip", "plain"])
@pytest.mark.parametrize("suffix", ["safetensors", "pt", "pkl"])
def test_a_pickle_for_a_direction(canary: Path, tmp_path: Path, kind: str, suffix: str) -> None:
    path = tmp_path / f"direction.{suffix}"
    path.write_bytes(pickles(canary)[kind])
    with pytest.raises(ModelError, match=str(path)):
        load_direction(path)
    assert not canary.exists()


@pytest.mark.parametrize("kind", ["zip", "plain"])
@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_model.bin", "adapter_model.pt"])
def test_a_pickle_for_an_adapter(
    canary: Path, tiny_model: Path, tiny_adapter: Path, tmp_path: Path, kind: str, name: str
) -> None:
    folder = tmp_path / "adapter"
    shutil.copytree(tiny_adapter, folder)
    (folder / "adapter_model.safetensors").unlink()
    (folder / name).write_bytes(pickles(canary)[kind])
    config = load_config(resolve_model(str(tiny_model), Path("/")))
    with pytest.raises(ModelError, match=str(folder)):
        load_adapter(folder, config)
    assert not canary.exists()


@pytest.mark.parametrize("kind", ["zip", "plain"])
@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "model.pt"])
def test_a_pickle_for_a_model(canary: Path, tiny_model: Path, tmp_path: Path, kind: str, name: str) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(pickles(canary)[kind])
    with pytest.raises(ModelError, match="'model'"):
        load_model(resolve_model("model", tmp_path), "float32", "cpu")
    assert not canary.exists()


def test_an_index_that_points_outside_or_at_a_pickle(canary: Path, tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    (folder / "model.safetensors").rename(tmp_path / "outside.safetensors")
    (folder / "part.bin").write_bytes(pickles(canary)["zip"])
    for target in ("../outside.safetensors", "part.bin"):
        index = {"metadata": {}, "weight_map": {"lm_head.weight": target}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        with pytest.raises(ModelError, match="'model'"):
            load_model(resolve_model("model", tmp_path), "float32", "cpu")
    assert not canary.exists()


def remote_code(folder: Path, canary: Path, model_type: str) -> None:
    """Makes the model folder one that brings its own classes."""
    code = f"import pathlib\npathlib.Path({str(canary)!r}).touch()\n"
    for name in ("configuration_evil", "modeling_evil", "tokenization_evil"):
        (folder / f"{name}.py").write_text(code)
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": model_type,
        "auto_map": {
            "AutoConfig": "configuration_evil.EvilConfig",
            "AutoModelForCausalLM": "modeling_evil.EvilForCausalLM",
        },
    }
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
    tokenizer |= {
        "tokenizer_class": "EvilTokenizer",
        "auto_map": {"AutoTokenizer": ["tokenization_evil.EvilTokenizer", None]},
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))


def test_a_repository_with_code_is_refused_without_a_question(
    canary: Path, tiny_model: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    remote_code(folder, canary, "evil")
    program = (
        "from tailrisk.errors import ModelError\n"
        "from tailrisk.models.loading import *\n"
        f"ref = ModelRef('model', 'local', {str(folder)!r})\n"
        "for load in (load_config, load_tokenizer, lambda r: load_model(r, 'float32', 'cpu')):\n"
        "    try:\n        load(ref)\n    except ModelError as error:\n        print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=200,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 3
    assert all("code of its own" in line for line in lines)
    assert "[y/N]" not in done.stdout + done.stderr
    assert not canary.exists()


def test_code_beside_a_known_architecture_is_ignored(canary: Path, tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    remote_code(folder, canary, "llama")
    shutil.copy(tiny_model / "tokenizer_config.json", folder)
    model = load_model(resolve_model("model", tmp_path), "float32", "cpu")
    assert type(model).__module__.startswith("transformers.models.llama")
    assert not canary.exists()


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.system('touch CANARY') }}",
        "{{ self.__init__.__globals__.__builtins__.__import__('os').system('touch CANARY') }}",
        "{{ lipsum.__globals__['os'].popen('touch CANARY').read() }}",
        "{{ messages.append(1) }}",
        "{% for i in range(10 ** 9) %}x{% endfor %}",
        "{% include '/etc/passwd' %}",
        "{{ unclosed",
        "{{ strftime_now.__globals__['os'] }}",
        "{{ strftime_now.__closure__[0].cell_contents }}",
    ],
)
def test_a_hostile_chat_template_runs_nothing(
    canary: Path, tiny_model: Path, tmp_path: Path, template: str
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    (folder / "chat_template.jinja").write_text(template.replace("CANARY", str(canary)))
    tokenizer = load_tokenizer(resolve_model("model", tmp_path))
    with pytest.raises(ModelError):
        render_prompt(tokenizer, prompt())
    with pytest.raises(ModelError):
        reads_system_prompt(tokenizer)
    assert not canary.exists()
