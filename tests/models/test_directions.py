"""Directions as files: kept without loss, read by both kinds of proposals, refused when they are something else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tailrisk.errors import ConfigError, ModelError
from tailrisk.models.directions import Direction, load_direction, save_direction
from tailrisk.models.interventions.ablation import Ablation
from tailrisk.models.vectorfiles import read_vectors

SCORES = {"bypass": -3.25, "kl": 0.1 + 0.2}


def direction(length: float = 2.5, layer: int = 3) -> Direction:
    vector = torch.nn.functional.normalize(torch.randn(16, generator=torch.Generator().manual_seed(1)), dim=0)
    return Direction(vector, layer, length, "model-digest", "adapter-digest", -4, SCORES)


def test_a_direction_survives_its_file(tmp_path: Path) -> None:
    for length in (1.0, 0.1 + 0.2, 1e-30):
        made = direction(length)
        save_direction(tmp_path / "x" / "d.safetensors", made)
        back = load_direction(tmp_path / "x" / "d.safetensors")
        assert torch.equal(back.vector, made.vector)
        assert (back.layer, back.length, back.position) == (3, length, -4)
        assert (back.model, back.adapter, dict(back.scores)) == ("model-digest", "adapter-digest", SCORES)


def test_as_a_vector_it_has_its_raw_length_and_knows_its_layer(tmp_path: Path) -> None:
    made = direction()
    save_direction(tmp_path / "d.safetensors", made)
    found = read_vectors(tmp_path / "d.safetensors")
    at = found.at(None, 16, 5)
    assert list(at) == [3]
    assert torch.equal(at[3], made.vector * 2.5)
    assert list(found.at((0, -1), 16, 5)) == [0, 4], "named layers win"


def test_a_layer_that_the_model_does_not_have_is_an_error(tmp_path: Path) -> None:
    save_direction(tmp_path / "d.safetensors", direction())
    with pytest.raises(ConfigError, match="layer 3 is out of range; the target has blocks 0 to 2"):
        read_vectors(tmp_path / "d.safetensors").at(None, 16, 3)


def test_as_an_ablation_its_length_does_not_matter(tmp_path: Path) -> None:
    made = direction(1e-3)
    save_direction(tmp_path / "d.safetensors", made)
    ablation = Ablation(read_vectors(tmp_path / "d.safetensors", "direction").one(16))
    assert torch.allclose(ablation.direction, made.vector.double(), atol=1e-6)


def test_layer_and_length_are_part_of_the_identity(tmp_path: Path) -> None:
    digests = set()
    for number, made in enumerate((direction(), direction(layer=4), direction(3.0))):
        save_direction(tmp_path / f"{number}.safetensors", made)
        digests.add(read_vectors(tmp_path / f"{number}.safetensors").digest)
    assert len(digests) == 3


OWN = {"format": "tailrisk-direction-2", "layer": "1", "length": "0x1p0"}
UNIT = torch.ones(4) / 2


@pytest.mark.parametrize(
    ("tensors", "metadata", "message"),
    [
        ({"direction": UNIT}, None, "not a direction of tailrisk"),
        ({"other": UNIT}, OWN, "not a direction of tailrisk"),
        ({"direction": UNIT}, {**OWN, "format": "tailrisk-direction-1"}, "make it anew with"),
        ({"direction": torch.ones(4)}, OWN, "no vector of unit length"),
        ({"direction": torch.full((4,), torch.nan)}, OWN, "no vector of unit length"),
        ({"direction": torch.ones(1, 1)}, OWN, "no vector of unit length"),
        ({"direction": UNIT}, {**OWN, "layer": "one"}, "not a safetensors direction"),
        ({"direction": UNIT}, {**OWN, "layer": "-1"}, "layer -1; the file is damaged"),
        ({"direction": UNIT}, {**OWN, "length": "0x0p0"}, "raw length 0"),
        ({"direction": UNIT}, {**OWN, "length": "inf"}, "raw length inf"),
        ({"direction": UNIT}, {**OWN, "scores": "[1]"}, "not a safetensors direction"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, tensors, metadata, message: str) -> None:
    path = tmp_path / "d.safetensors"
    save_file(tensors, path, metadata=metadata)
    with pytest.raises(ModelError, match=message) as caught:
        load_direction(path)
    assert str(path) in str(caught.value)


def test_a_file_that_is_not_there_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load_direction(tmp_path / "none.safetensors")
