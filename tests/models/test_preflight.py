"""Every mismatch is found before weights are loaded, and all of them are named at once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tinymodel import EOS, make_tiny_adapter, make_tiny_model, prompt
from vectorkit import write_pt

from tailrisk.config import Config
from tailrisk.errors import ConfigError, InputError, ModelError
from tailrisk.models.directions import Direction, save_direction
from tailrisk.models.preflight import check

PROMPTS = [prompt("w0 w1", "p0"), prompt("w2", "p1")]


@pytest.fixture(scope="module")
def home(tiny_model: Path, tiny_adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, an adapter, a second adapter, a checkpoint and a direction."""
    folder = tmp_path_factory.mktemp("home")
    shutil.copytree(tiny_model, folder / "model")
    shutil.copytree(tiny_adapter, folder / "adapter")
    make_tiny_adapter(folder / "other", tiny_model, seed=4)
    make_tiny_model(folder / "checkpoint", seed=7, max_positions=64)
    vector = torch.nn.functional.normalize(torch.ones(16), dim=0)
    save_direction(folder / "direction.safetensors", Direction(vector, 1, 1.0, ""))
    write_pt(folder / "table.pt", torch.eye(16)[:2])
    return folder


ALL = [
    {"name": "persona", "kind": "system_prompt", "text": "w3 w4"},
    {"name": "off", "kind": "lora", "adapter": "target", "scale": 0},
    {"name": "other", "kind": "lora", "adapter": "other"},
    {"name": "ablation", "kind": "ablation", "direction": "direction.safetensors"},
    {"name": "writes", "kind": "ablation", "direction": "direction.safetensors", "form": "writes"},
    {"name": "steered", "kind": "vector", "vector": "table.pt", "layers": [-1], "tokens": "response"},
    {"name": "opening", "kind": "prefix", "text": "w5 w6"},
    {
        "name": "shut",
        "kind": "prefix",
        "avoid": ["w5", "w7 w8"],
        "also": [{"kind": "lora", "adapter": "adapter", "added": True}],
    },
    {"name": "second", "kind": "checkpoint", "model": "checkpoint"},
]


def config(
    home: Path, *proposals: dict[str, Any], sampling: dict[str, Any] | None = None, **target: Any
) -> Config:
    target = {"model": "model", "dtype": "float32", **target}
    target["sampling"] = {"max_new_tokens": 8, **(sampling or {})}
    data = {
        "target": target,
        "prompts": {"path": "prompts.jsonl"},
        "proposals": list(proposals),
        "judge": {"kind": "refusal"},
    }
    return Config.model_validate(data).at(home)


def test_a_sound_configuration_gives_all_digests(home: Path) -> None:
    found = check(config(home, *ALL, adapter="adapter", system_prompt="w9"), PROMPTS)
    assert set(found.models) == {"target", "second"}
    assert set(found.adapters) == {"target", "other", "shut.also.0"}
    assert found.adapters["shut.also.0"] == found.adapters["target"]
    assert set(found.directions) == {"ablation", "writes", "steered"}
    assert found.directions["ablation"] == found.directions["writes"]
    assert set(found.prompts) == {"p0", "p1"}
    digests = [
        *found.models.values(),
        *(d for name, d in found.adapters.items() if name != "shut.also.0"),
        *found.directions.values(),
        *found.prompts.values(),
    ]
    assert len({*digests, found.template}) == 9
    assert all(len(d) == 64 for d in digests)
    # <bos> system w3 w4 user w0 w1 assistant
    assert found.prompt_lengths == {"p0": 8, "p1": 7}
    assert (found.stop_ids, found.vocab_size, found.max_positions) == ((EOS,), 32, 128)
    json.dumps(found.as_dict(), allow_nan=False)


def test_no_weights_are_loaded(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import PreTrainedModel

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("weights were loaded")

    monkeypatch.setattr(PreTrainedModel, "from_pretrained", refuse)
    check(config(home, *ALL, adapter="adapter"), PROMPTS)


def test_models_that_cannot_be_cut_as_asked(home: Path) -> None:
    sound = config(home, ALL[-1])
    three = sound.cluster.models.model_copy(update={"tensor_parallel": 3})
    cut = sound.model_copy(update={"cluster": sound.cluster.model_copy(update={"models": three})})
    with pytest.raises(ModelError, match="sizes that do: 1") as error:
        check(cut, PROMPTS)
    lines = str(error.value).splitlines()
    assert [line.split(":")[0] for line in lines] == ["target", "proposal 'second'"]


def test_prompt_digests_follow_the_rendered_ids(home: Path) -> None:
    one = check(config(home), PROMPTS)
    assert one == check(config(home), PROMPTS)
    other = check(config(home, system_prompt="w3"), PROMPTS)
    assert all(one.prompts[k] != other.prompts[k] for k in one.prompts)
    assert check(config(home), [prompt("w0 w2", "p0")]).prompts["p0"] != one.prompts["p0"]


def test_all_problems_are_in_one_error(home: Path) -> None:
    bad = config(
        home,
        {"name": "b", "kind": "lora", "adapter": "nowhere"},
        {"name": "c", "kind": "ablation", "direction": "nowhere.safetensors"},
        {"name": "d", "kind": "prefix", "text": "w5 " * 8},
        {"name": "e", "kind": "checkpoint", "model": "no such folder"},
        {"name": "f", "kind": "prefix", "text": "w5", "mix": 0.5},
        sampling={"stop_token_ids": [2, 32]},
        adapter="gone",
        device="tpu9000",
    )
    long = prompt("w0 " * 200, "long")
    with pytest.raises(ConfigError) as caught:
        check(bad, [*PROMPTS, long])
    lines = str(caught.value).splitlines()
    for part in (
        "target.device",
        "stop_token_ids: [32]",
        "target: adapter",
        "proposal 'b'",
        "proposal 'c'",
        "proposal 'd': opening 'w",
        "proposal 'e'",
        "proposal 'f': a prefix",
        "prompt 'long': 203 tokens and 8 new ones",
    ):
        assert sum(part in line for line in lines) == 1, part
    assert len(lines) == 9


def test_scaling_the_targets_adapter_needs_one(home: Path) -> None:
    with pytest.raises(ConfigError, match=r"proposal 'a': adapter: target needs"):
        check(config(home, {"name": "a", "kind": "lora", "adapter": "target"}), PROMPTS)


def test_without_a_target_the_proposals_files_are_still_looked_at(home: Path) -> None:
    bad = config(
        home,
        {"name": "c", "kind": "ablation", "direction": "nowhere.safetensors"},
        {"name": "e", "kind": "checkpoint", "model": "no such folder"},
        model="no such model",
    )
    with pytest.raises(ConfigError) as caught:
        check(bad, PROMPTS)
    assert len(str(caught.value).splitlines()) == 3


def test_the_context_counts_new_tokens_and_every_context(home: Path) -> None:
    fits = config(home, sampling={"max_new_tokens": 128 - 5})
    check(fits, PROMPTS)
    with pytest.raises(
        InputError, match=r"prompt 'p0': 5 tokens and 124 new ones .* 128 positions of the target"
    ):
        check(config(home, sampling={"max_new_tokens": 128 - 4}), PROMPTS)
    with pytest.raises(InputError, match=r"prompt 'p0' under proposal 'persona': 8 tokens"):
        check(config(home, ALL[0], sampling={"max_new_tokens": 128 - 7}), PROMPTS)
    with pytest.raises(InputError, match=r"64 positions of checkpoint 'second'"):
        check(config(home, ALL[-1], sampling={"max_new_tokens": 60}), PROMPTS)


def test_many_problems_are_cut_short(home: Path) -> None:
    with pytest.raises(InputError, match=r"and 10 more"):
        check(config(home), [prompt("w0 " * 200, f"p{i}") for i in range(30)])


def test_an_adapter_for_another_model(home: Path, tmp_path: Path) -> None:
    wide = make_tiny_model(tmp_path / "wide", hidden=32)
    made = make_tiny_adapter(tmp_path / "made", wide)
    with pytest.raises(ConfigError, match=r"proposal 'x': adapter .*another model"):
        check(config(home, {"name": "x", "kind": "lora", "adapter": str(made)}), PROMPTS)
    with pytest.raises(ConfigError, match=r"target: adapter .*another model"):
        check(config(home, adapter=str(made)), PROMPTS)


def test_a_direction_of_another_size(home: Path, tmp_path: Path) -> None:
    vector = torch.nn.functional.normalize(torch.ones(32), dim=0)
    save_direction(tmp_path / "d.safetensors", Direction(vector, 1, 1.0, ""))
    with pytest.raises(ConfigError, match=r"32 entries.*16"):
        check(
            config(home, {"name": "x", "kind": "ablation", "direction": str(tmp_path / "d.safetensors")}),
            PROMPTS,
        )


@pytest.mark.parametrize(
    ("vector", "layers", "error", "message"),
    [
        (torch.ones(32), [0], ConfigError, r"vector .*v\.pt: has 32 entries, the target's hidden size is 16"),
        (torch.ones(16), [2], ConfigError, r"layer 2 is out of range; the target has blocks 0 to 1"),
        (torch.ones(16), None, ConfigError, r"'layers' must say"),
        (torch.eye(16)[:5], None, ConfigError, r"has 5 rows; the target has 2 blocks"),
        ({5: torch.ones(16)}, [1], ConfigError, r"has no vector for layer 1, only for 5"),
        (torch.zeros(16), [0], ModelError, "all zero"),
        (torch.full((16,), torch.nan), [0], ModelError, "not finite"),
        ({"vector": torch.ones(16), "by": Path("x")}, [0], ModelError, "weights-only"),
    ],
)
def test_vectors_are_held_against_the_target(
    home: Path, tmp_path: Path, vector: Any, layers: Any, error: type[Exception], message: str
) -> None:
    path = write_pt(tmp_path / "v.pt", vector)
    proposal = {"kind": "vector", "vector": str(path), "layers": layers}
    for where, made in (
        ("proposal 'x': ", {"name": "x", **proposal}),
        ("proposal 'x': also.0: ", {"name": "x", "kind": "system_prompt", "text": "w3", "also": [proposal]}),
    ):
        with pytest.raises(error, match=where + f".*{message}"):
            check(config(home, made), PROMPTS)


def test_further_changes_are_checked_like_proposals_of_their_kind(home: Path) -> None:
    also = [
        {"kind": "system_prompt", "text": "w3 w4 w5"},
        {"kind": "lora", "adapter": "other", "scale": 0.5},
        {"kind": "vector", "vector": "table.pt"},
    ]
    made = {"name": "x", "kind": "ablation", "direction": "direction.safetensors", "also": also}
    found = check(config(home, made), PROMPTS)
    assert set(found.adapters) == {"x.also.1"}
    assert set(found.directions) == {"x", "x.also.2"}
    # <bos> system w3 w4 w5 user w0 w1 assistant
    assert found.prompt_lengths["p0"] == 9
    with pytest.raises(InputError, match="prompt 'p0' under proposal 'x': 9 tokens"):
        check(config(home, made, sampling={"max_new_tokens": 128 - 8}), PROMPTS)
    bad = [{"kind": "lora", "adapter": "target"}, {"kind": "lora", "adapter": "nowhere"}]
    with pytest.raises(ConfigError) as caught:
        check(config(home, {**made, "also": bad}), PROMPTS)
    assert [line.split(": ")[:2] for line in str(caught.value).splitlines()] == [
        ["proposal 'x'", "also.0"],
        ["proposal 'x'", "also.1"],
    ]


def test_a_checkpoint_with_another_vocabulary(home: Path, tmp_path: Path) -> None:
    make_tiny_model(tmp_path / "m", vocab=40)
    with pytest.raises(ConfigError, match=r"vocabulary, .*output tokens \(32 and 40\)"):
        check(config(home, {"name": "x", "kind": "checkpoint", "model": str(tmp_path / "m")}), PROMPTS)


def test_a_checkpoint_whose_tokenizer_only_swaps_two_words(home: Path, tmp_path: Path) -> None:
    shutil.copytree(home / "checkpoint", tmp_path / "m")
    path = tmp_path / "m" / "tokenizer.json"
    path.write_text(path.read_text().replace('"w3"', '"_"').replace('"w4"', '"w3"').replace('"_"', '"w4"'))
    with pytest.raises(ConfigError, match="different vocabulary;"):
        check(config(home, {"name": "x", "kind": "checkpoint", "model": str(tmp_path / "m")}), PROMPTS)


def test_a_checkpoint_with_another_end_token(home: Path, tmp_path: Path) -> None:
    shutil.copytree(home / "checkpoint", tmp_path / "m")
    path = tmp_path / "m" / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"eos_token": "w3"}))
    with pytest.raises(ConfigError, match="end-of-sequence"):
        check(config(home, {"name": "x", "kind": "checkpoint", "model": str(tmp_path / "m")}), PROMPTS)


def test_a_template_that_drops_system_prompts(home: Path, tmp_path: Path) -> None:
    make_tiny_model(tmp_path / "m", chat_template="{{ messages[-1]['content'] }}")
    bad = config(home, ALL[0], model=str(tmp_path / "m"), system_prompt="w1")
    with pytest.raises(ConfigError) as caught:
        check(bad, PROMPTS)
    assert [line.split(":")[0] for line in str(caught.value).splitlines()] == [
        "target.system_prompt",
        "proposal 'persona'",
    ]


def test_no_chat_template_is_said_once(home: Path, tmp_path: Path) -> None:
    make_tiny_model(tmp_path / "m", chat_template=None)
    with pytest.raises(ModelError) as caught:
        check(config(home, model=str(tmp_path / "m")), PROMPTS)
    assert len(str(caught.value).splitlines()) == 1


def test_a_pickle_named_safetensors_is_a_model_error(home: Path, tmp_path: Path) -> None:
    torch.save({"direction": torch.ones(16)}, tmp_path / "d.safetensors")
    with pytest.raises(ModelError, match="safetensors"):
        check(
            config(home, {"name": "x", "kind": "ablation", "direction": str(tmp_path / "d.safetensors")}),
            PROMPTS,
        )


def test_an_opening_with_a_stop_token(home: Path) -> None:
    stop = {"stop_token_ids": [12]}
    check(config(home, {"name": "x", "kind": "prefix", "avoid": ["w6"]}, sampling=stop), PROMPTS)
    with pytest.raises(ConfigError, match=r"proposal 'x': opening 'w5 w6' holds the stop token 12"):
        check(config(home, {"name": "x", "kind": "prefix", "text": "w5 w6"}, sampling=stop), PROMPTS)


def test_an_opening_without_tokens(home: Path) -> None:
    with pytest.raises(ConfigError, match=r"proposal 'x': .*no tokens"):
        check(config(home, {"name": "x", "kind": "prefix", "text": "   "}), PROMPTS)
