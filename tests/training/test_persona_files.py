"""What ``train persona`` writes: vectors that a proposal reads as they were found, and every number of the search."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
import yaml
from personakit import config, planted, trait
from plantedmodel import BLOCKS, HIDDEN, LAYER, NO
from safetensors import safe_open
from stepcount import Counted

from tailrisk.config import Config
from tailrisk.errors import ConfigError
from tailrisk.models import preflight
from tailrisk.models.vectorfiles import read_vectors
from tailrisk.proposals import build_laws
from tailrisk.training.persona import check_target, find_vectors, open_target
from tailrisk.training.persona_files import Made, proposal, proposal_yaml, save
from tailrisk.training.persona_search import Surface, search


class Written(NamedTuple):
    folder: Path
    made: Made
    path: Path
    beside: Path


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    folder = planted(tmp_path_factory.mktemp("files"))
    loaded = trait(folder)
    target = open_target(check_target(config(folder), loaded, 4, [LAYER]))
    found = find_vectors(target, loaded, samples=4, seed=1, watch=Counted())
    given = {"coefficients": (0.02, 0.2), "answers": 5, "tokens": "prompt", "seed": 2}
    surface = search(target, loaded, found.vectors, watch=Counted(), **given)
    made = Made(loaded.trait, target, found, surface, 7)
    path = folder / "new" / "no-sayer.safetensors"
    return Written(folder, made, path, save(path, made))


def proposed(written: Written) -> dict:
    fields = proposal(written.path, written.made, config(written.folder))
    assert fields is not None
    return fields


def test_the_file_holds_every_blocks_vector_as_it_was_found(written: Written) -> None:
    read = read_vectors(written.path).at(None, HIDDEN, BLOCKS)
    assert list(read) == list(range(BLOCKS))
    for layer, vector in read.items():
        assert torch.equal(vector, written.made.found.vectors[layer])


def test_its_header_says_where_it_comes_from(written: Written) -> None:
    with safe_open(written.path, framework="np") as file:
        header = file.metadata()
    counts = written.made.found.counts
    assert header == {
        "format": "tailrisk-persona-1",
        "trait": "no-sayer",
        "pairs_kept": str(counts.kept),
        "pairs_drawn": "24",
        "seed": "7",
        "model": written.made.target.model,
        "adapter": "",
    }
    assert len(header["model"]) == 64


def test_the_surface_beside_it_holds_every_number_and_no_text(written: Written) -> None:
    assert written.beside == written.path.with_suffix(".json")
    text = written.beside.read_text()
    told = json.loads(text)
    assert told == json.loads(json.dumps(written.made.to_json()))
    assert told["pairs"] == written.made.found.counts._asdict()
    assert [(c["layer"], c["coefficient"]) for c in told["cells"]] == [(LAYER, 0.02), (LAYER, 0.2)]
    assert told["chosen"] == told["cells"][1] and told["tokens"] == "prompt"
    assert set(told["target"]) == {"answers", "trait", "coherent", "both", "unsettled"}
    assert told["lengths"] == [pytest.approx(float(v.norm()), abs=1e-5) for v in written.made.found.vectors]
    assert "w3" not in text and "w11" not in text, "neither prompts nor answers"


def test_the_proposal_is_the_setting_that_was_chosen(written: Written) -> None:
    """Pasted into the audit it is the law of the search, number for number."""
    fields = proposed(written)
    assert fields == {
        "name": "no-sayer-vector",
        "kind": "vector",
        "vector": "new/no-sayer.safetensors",
        "layers": [LAYER],
        "coefficient": 0.2,
        "tokens": "prompt",
    }
    audit = pasted(written, proposal_yaml(fields))
    (question, *_) = trait(written.folder).held_out
    preflight.check(audit, [question])
    laws = build_laws(audit)
    drawn = laws.sample(question, 1, 40, seed=5)
    said = sum(text.split()[:1] == [NO] for text in laws.texts(drawn.tokens))
    assert said == 40, "at twice the strength of nothing the planted model says it always"
    plain = sum(t.split()[:1] == [NO] for t in laws.texts(laws.sample(question, 0, 40, seed=5).tokens))
    assert plain < 8
    log_p = laws.log_prob(question, drawn.tokens)
    assert np.all(log_p[:, 1] > log_p[:, 0])


def pasted(written: Written, line: str) -> Config:
    """The audit with the printed line as its only proposal."""
    given = yaml.safe_load(f"proposals:\n{line}\n")
    plain = config(written.folder).model_dump(mode="json")
    return Config.model_validate({**plain, **given}).at(written.folder)


def test_a_name_that_yaml_would_misread_is_quoted(written: Written, tmp_path: Path) -> None:
    place = written.folder.parent / "a: b #" / "no-sayer.safetensors"
    fields = proposal(place, written.made, config(written.folder))
    assert fields is not None
    (read,) = yaml.safe_load(f"proposals:\n{proposal_yaml(fields)}\n")["proposals"]
    assert read == fields
    assert read["vector"] == "../a: b #/no-sayer.safetensors"


def test_without_a_choice_there_is_no_proposal(written: Written) -> None:
    surface: Surface = replace(written.made.surface, chosen=None, why="none")
    made = replace(written.made, surface=surface)
    assert proposal(written.path, made, config(written.folder)) is None
    assert made.to_json()["chosen"] is None


def test_a_file_is_replaced_in_full_or_left_alone(written: Written, tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "v.safetensors"
    path.write_bytes(b"old")
    save(path, written.made)
    assert read_vectors(path).digest == read_vectors(written.path).digest

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    path.write_bytes(b"old")
    monkeypatch.setattr("os.replace", full)
    with pytest.raises(
        ConfigError, match=r"--out: .*v\.safetensors cannot be written \(No space left on device\)"
    ):
        save(path, written.made)
    assert path.read_bytes() == b"old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["v.json", "v.safetensors"], "nothing half written"


def test_a_folder_that_cannot_be_made_is_an_error_with_its_option(written: Written, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"--out: .* cannot be written"):
        save(tmp_path / "file" / "v.safetensors", written.made)
