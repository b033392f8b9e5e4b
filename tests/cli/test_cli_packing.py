"""What goes along with a job: the resolved configuration and the files that it names, in their places."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from tailrisk.cli import packing
from tailrisk.cli.packing import ROOT, pack
from tailrisk.config import Config, TargetConfig
from tailrisk.configfile import load_config
from tailrisk.errors import ConfigError

KIB = 1024


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TAILRISK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def file(path: Path, text: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def config(folder: Path, **changes: Any) -> Config:
    """An audit in ``folder`` that names only its prompts; with sections changed."""
    file(folder / "prompts.jsonl", '{"prompt": "hello"}')
    data = {
        "run": {"dir": "/shared/runs"},
        "target": {"model": "org/model"},
        "prompts": {"path": "prompts.jsonl"},
        "judge": {"kind": "refusal"},
        "tracking": {"uri": None},
    }
    path = file(folder / "audit.yaml", json.dumps({**data, **changes}))
    return load_config(path)


def names(package: packing.Package) -> list[str]:
    root = package.folder / ROOT
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def model(folder: Path) -> None:
    for name in ("config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"):
        file(folder / name)


def test_only_what_is_named_goes_along(tmp_path):
    home = tmp_path / "audit"
    for other in (".git/config", "runs/old/manifest.json", ".venv/pyvenv.cfg", "notes.txt", "other.jsonl"):
        file(home / other)
    package = pack(config(home), "audit.yaml")
    assert names(package) == ["audit.yaml", "prompts.jsonl"]
    assert package.config == f"{ROOT}/audit.yaml"
    assert package.files == 2


def test_files_keep_their_places_and_paths_their_spelling(tmp_path):
    file(tmp_path / "vectors" / "pirate.gguf", "v")
    file(tmp_path / "refusal.safetensors", "r")
    proposals = [
        {"name": "a", "kind": "ablation", "direction": "../../refusal.safetensors"},
        {
            "name": "b",
            "kind": "prefix",
            "text": "Sure",
            "also": [{"kind": "vector", "vector": "../../vectors/pirate.gguf"}],
        },
    ]
    package = pack(config(tmp_path / "work" / "audit", proposals=proposals), "my.yaml")
    assert names(package) == [
        "refusal.safetensors",
        "vectors/pirate.gguf",
        "work/audit/my.yaml",
        "work/audit/prompts.jsonl",
    ]
    reread = load_config(package.folder / package.config)
    assert reread.proposals[0].direction == "../../refusal.safetensors"  # pyright: ignore
    assert reread.resolve("../../vectors/pirate.gguf").read_text() == "v"


def test_the_configuration_is_the_resolved_one_and_joins_the_ray_it_runs_on(tmp_path):
    settings = config(tmp_path / "audit")
    settings = load_config(settings.base / "audit.yaml", ["budget.draws=777", "cluster.models.num_cpus=0.5"])
    reread = load_config(pack_folder(settings))
    assert reread.budget.draws == 777
    assert reread.cluster.models.num_cpus == 0.5
    assert reread.cluster.address == "auto"


def pack_folder(settings: Config) -> Path:
    package = pack(settings, "audit.yaml")
    return package.folder / package.config


@pytest.mark.parametrize(
    "text",
    [
        "1e-5",
        "no",
        "null",
        "~",
        "12",
        "a: b # c",
        "two\nlines\n",
        " \t",
        "naïve 東京 🙂",
        "\x85\u2028",
        "'\"\\",
        "x" * 300,
    ],
)
def test_texts_come_back_as_they_were(tmp_path, text):
    settings = config(tmp_path / "audit")
    settings = settings.model_copy(update={"target": TargetConfig(model="org/model", system_prompt=text)})
    assert load_config(pack_folder(settings)).target.system_prompt == text


def test_absolute_paths_and_names_are_left_to_the_cluster(tmp_path):
    target = {"model": "/shared/model", "adapter": "models:/safety@champion"}
    proposals = [{"name": "c", "kind": "checkpoint", "model": "org/sibling"}]
    judge = {"kind": "python", "function": "/shared/judge.py:harmful"}
    package = pack(config(tmp_path / "audit", target=target, proposals=proposals, judge=judge), "audit.yaml")
    assert names(package) == ["audit.yaml", "prompts.jsonl"]


def test_a_model_brings_what_is_read_of_it_and_an_adapter_its_two_files(tmp_path):
    home = tmp_path / "audit"
    model(home / "model")
    for other in (".git/HEAD", "pytorch_model.bin", "checkpoint-5/model.safetensors", "README.md"):
        file(home / "model" / other)
    for name in ("adapter_config.json", "adapter_model.safetensors", "optimizer.pt"):
        file(home / "adapter" / name)
    package = pack(config(home, target={"model": "model", "adapter": "adapter"}), "audit.yaml")
    assert names(package) == [
        "adapter/adapter_config.json",
        "adapter/adapter_model.safetensors",
        "audit.yaml",
        "model/chat_template.jinja",
        "model/config.json",
        "model/model.safetensors",
        "model/tokenizer.json",
        "prompts.jsonl",
    ]


def test_a_judge_brings_what_it_imports(tmp_path):
    home = tmp_path / "audit"
    file(tmp_path / "judging" / "judge.py", "import words\ndef harmful(p, r): return 0.0\n")
    file(tmp_path / "judging" / "words.py")
    judge = {"kind": "python", "function": "../judging/judge.py:harmful"}
    package = pack(config(home, judge=judge), "audit.yaml")
    assert names(package) == [
        "audit/audit.yaml",
        "audit/prompts.jsonl",
        "judging/judge.py",
        "judging/words.py",
    ]


def test_a_trained_judge_brings_its_weights(tmp_path):
    file(tmp_path / "trained" / "judge.safetensors", "w")
    judge = {"kind": "linear", "weights": "../trained/judge.safetensors"}
    package = pack(config(tmp_path / "audit", judge=judge), "audit.yaml")
    assert names(package) == ["audit/audit.yaml", "audit/prompts.jsonl", "trained/judge.safetensors"]
    (tmp_path / "trained" / "judge.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"judge\.weights.*no such file"):
        pack(config(tmp_path / "audit", judge=judge), "audit.yaml")


def test_a_link_is_sent_as_what_it_leads_to(tmp_path):
    home = tmp_path / "audit"
    settings = config(home)
    (home / "prompts.jsonl").rename(tmp_path / "elsewhere.jsonl")
    (home / "prompts.jsonl").symlink_to(tmp_path / "elsewhere.jsonl")
    package = pack(settings, "audit.yaml")
    sent = package.folder / ROOT / "prompts.jsonl"
    assert names(package) == ["audit.yaml", "prompts.jsonl"]
    assert not sent.is_symlink() and "hello" in sent.read_text()


def test_too_much_is_refused_with_the_largest_named(tmp_path, cache):
    home = tmp_path / "audit"
    model(home / "model")
    file(home / "model" / "model.safetensors", "w" * 300 * KIB)
    file(home / "small.safetensors", "v" * KIB)
    proposals = [{"name": "a", "kind": "ablation", "direction": "small.safetensors"}]
    settings = config(home, target={"model": "model"}, proposals=proposals)
    with pytest.raises(ConfigError) as caught:
        pack(settings, "audit.yaml", limit=100 * KIB)
    told = str(caught.value).splitlines()
    assert "0.3 MiB together; a job takes 0.1 MiB along" in told[0]
    assert "target.model" in told[1] and "model.safetensors" in told[1]
    assert "proposals.0.direction" in told[2]
    assert "absolute paths; a model may also be named by its hub id" in told[-1]
    assert not cache.exists(), "nothing is written"


def test_all_files_that_are_missing_are_named(tmp_path):
    proposals = [
        {"name": "a", "kind": "ablation", "direction": "none.safetensors"},
        {"name": "b", "kind": "lora", "adapter": "empty"},
        {"name": "c", "kind": "lora", "adapter": "none"},
    ]
    (tmp_path / "audit" / "empty").mkdir(parents=True)
    with pytest.raises(ConfigError) as caught:
        pack(config(tmp_path / "audit", proposals=proposals), "audit.yaml")
    first, second, third = str(caught.value).splitlines()
    assert first.startswith("proposals.0.direction: 'none.safetensors': no such file")
    assert "proposals.1.adapter" in second and "no adapter_config.json and no adapter_model" in second
    assert third.startswith("proposals.2.adapter: 'none': no such folder")


def test_what_ray_would_leave_out_in_silence_is_refused(tmp_path):
    settings = config(tmp_path / "audit", prompts={"path": "venv/prompts.jsonl"})
    file(tmp_path / "audit" / "venv" / "prompts.jsonl")
    with pytest.raises(
        ConfigError, match=r"venv/prompts\.jsonl: Ray sends nothing from a folder named 'venv'"
    ):
        pack(settings, "audit.yaml")


def test_the_same_audit_is_the_same_folder_and_another_is_another(tmp_path, cache):
    settings = config(tmp_path / "audit")
    first = pack(settings, "audit.yaml").folder
    assert pack(settings, "audit.yaml").folder == first
    file(settings.base / "prompts.jsonl", '{"prompt": "other"}')
    assert pack(settings, "audit.yaml").folder != first
    assert len(list((cache / "jobs").iterdir())) == 2
    assert (cache / "jobs").stat().st_mode & 0o077 == 0, "prompts are nobody else's business"


def test_old_folders_are_swept(tmp_path):
    settings = config(tmp_path / "audit")
    first = pack(settings, "audit.yaml").folder
    week_ago = time.time() - 8 * 24 * 3600
    os.utime(first, (week_ago, week_ago))
    file(settings.base / "prompts.jsonl", '{"prompt": "other"}')
    pack(settings, "audit.yaml")
    assert not first.exists()
