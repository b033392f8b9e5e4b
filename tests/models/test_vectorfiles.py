"""Vector files of tailrisk and of other tools: what is read, and what is refused in which words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from vectorkit import write_gguf, write_pt, write_safetensors

from tailrisk.errors import ConfigError, ModelError
from tailrisk.models.directions import Direction, save_direction
from tailrisk.models.vectorfiles import Vectors, read_vectors

SIZE, BLOCKS = 6, 4


def vector(seed: int = 0, size: int = SIZE) -> torch.Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


def rows(count: int) -> torch.Tensor:
    return torch.stack([vector(i) for i in range(count)])


class Bomb:
    """Writes a file when unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.write_text, (self.canary, "ran"))


def singles(folder: Path) -> dict[str, Path]:
    v, unit = vector(), vector() / vector().norm()
    save_direction(folder / "own.safetensors", Direction(unit, 2))
    return {
        "own": folder / "own.safetensors",
        "safetensors": write_safetensors(folder / "a.safetensors", {"direction": v}),
        "safetensors, one row": write_safetensors(folder / "b.safetensors", {"v": v[None]}),
        "pt": write_pt(folder / "a.pt", v),
        "pth": write_pt(folder / "a.pth", v),
        "pt, parameter": write_pt(folder / "b.pt", torch.nn.Parameter(v)),
        "pt, vector": write_pt(folder / "c.pt", {"vector": v, "layer": 3, "note": "made by hand"}),
        "pt, one name": write_pt(folder / "d.pt", {"refusal": v}),
    }


def many(folder: Path) -> dict[str, Path]:
    """Vectors for the layers 1 and 3."""
    a, b = vector(1), vector(3)
    return {
        "gguf": write_gguf(folder / "a.gguf", {"direction.1": a, "direction.3": b}),
        "safetensors": write_safetensors(folder / "c.safetensors", {"direction.1": a, "direction.3": b}),
        "safetensors, long names": write_safetensors(
            folder / "d.safetensors", {"model.layers.1.v": a, "model.layers.3.v": b}
        ),
        "pt, numbers": write_pt(folder / "e.pt", {3: b, 1: a}),
        "pt, numbers as text": write_pt(folder / "f.pt", {"1": a, "3": b}),
        "pt, rows": write_pt(folder / "g.pt", {"layer_1": a[None], "layer_3": b[None]}),
        "pt, vector": write_pt(folder / "h.pt", {"vector": {1: a, 3: b}}),
    }


@pytest.mark.parametrize("kind", range(8))
def test_single_vectors(tmp_path: Path, kind: int) -> None:
    name, path = list(singles(tmp_path).items())[kind]
    found = read_vectors(path)
    want = vector() / vector().norm() if name == "own" else vector()
    assert torch.equal(found.one(SIZE), want)
    assert torch.equal(found.one(None), want)
    at = found.at((0, -1), SIZE, BLOCKS)
    assert list(at) == [0, 3] and all(torch.equal(v, want) for v in at.values())
    if name == "own":
        assert list(found.at(None, SIZE, BLOCKS)) == [2], "it says where it was read"
        return
    with pytest.raises(ConfigError, match=f"vector {path}: holds a single vector; 'layers' must say"):
        found.at(None, SIZE, BLOCKS)


@pytest.mark.parametrize("kind", range(7))
def test_vectors_by_layer(tmp_path: Path, kind: int) -> None:
    path = list(many(tmp_path).values())[kind]
    found = read_vectors(path)
    for layers in (None, (1, 3), (3, -3)):
        at = found.at(layers, SIZE, BLOCKS)
        assert set(at) == {1, 3}
        assert torch.equal(at[1], vector(1)) and torch.equal(at[3], vector(3))
    assert list(found.at((-1,), SIZE, BLOCKS)) == [3]
    with pytest.raises(ConfigError, match=r"has no vector for layer 2, only for 1, 3; change 'layers'"):
        found.at((1, 2), SIZE, BLOCKS)
    with pytest.raises(ConfigError, match="layer 3 is out of range; the target has blocks 0 to 2"):
        found.at(None, SIZE, 3)
    with pytest.raises(ConfigError, match="holds 2 vectors where one is wanted"):
        found.one(SIZE)


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_tables_begin_with_the_first_block_or_with_the_embeddings(tmp_path: Path, suffix: str) -> None:
    for count, skipped in ((BLOCKS, 0), (BLOCKS + 1, 1)):
        path = tmp_path / f"t{count}.{suffix}"
        if suffix == "pt":
            write_pt(path, rows(count))
        else:
            write_safetensors(path, {"vectors": rows(count)})
        found = read_vectors(path)
        at = found.at(None, SIZE, BLOCKS)
        assert list(at) == [0, 1, 2, 3]
        assert all(torch.equal(v, vector(i + skipped)) for i, v in at.items())
        assert torch.equal(found.at((-2,), SIZE, BLOCKS)[2], vector(2 + skipped))
        with pytest.raises(ConfigError, match=f"holds {count} vectors where one is wanted"):
            found.one(SIZE)
        with pytest.raises(ConfigError, match=rf"has {count} rows; the target has 9 blocks.* or 10 with"):
            found.at(None, SIZE, 9)


def test_numbers_are_kept_as_they_are(tmp_path: Path) -> None:
    double = vector().double() / 3
    half = vector().to(torch.bfloat16)
    assert torch.equal(read_vectors(write_pt(tmp_path / "d.pt", double)).one(SIZE), double)
    assert torch.equal(read_vectors(write_pt(tmp_path / "h.pt", half)).one(SIZE), half.float())
    gguf = write_gguf(tmp_path / "h.gguf", {"direction.2": vector()}, half=True)
    assert torch.equal(read_vectors(gguf).one(SIZE), vector().half().float())


def test_digests_follow_contents_and_not_paths(tmp_path: Path) -> None:
    made = [*singles(tmp_path).values(), *many(tmp_path).values()]
    digests = {name.name: read_vectors(name).digest for name in made}
    assert digests["a.pt"] == digests["a.safetensors"] == digests["c.pt"] != digests["own.safetensors"]
    assert digests["a.gguf"] == digests["e.pt"] == digests["c.safetensors"] != digests["a.pt"]
    tables = {read_vectors(write_pt(tmp_path / "t.pt", rows(n))).digest for n in (4, 5)}
    assert len({*digests.values(), *tables}) == 5
    unit = vector() / vector().norm()
    save_direction(tmp_path / "again.safetensors", Direction(unit, 2))
    assert read_vectors(tmp_path / "again.safetensors").digest == digests["own.safetensors"]


@pytest.mark.parametrize("how", ["alone", "beside tensors", "plain pickle"])
def test_code_in_a_pt_file_is_refused_and_not_run(tmp_path: Path, how: str) -> None:
    import pickle

    canary, path = tmp_path / "canary", tmp_path / "v.pt"
    bomb = Bomb(canary)
    if how == "plain pickle":
        path.write_bytes(pickle.dumps(bomb))
    else:
        torch.save(bomb if how == "alone" else {"vector": vector(), "x": bomb}, path)
    with pytest.raises(ModelError, match=f"vector {path}: refused by torch's weights-only loader .* code"):
        read_vectors(path)
    assert not canary.exists()
    pickle.loads(pickle.dumps(bomb))
    assert canary.exists(), "the file would have run"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("v.pt", b"", "weights-only"),
        ("v.pt", b"no pickle at all", "weights-only"),
        ("v.safetensors", b"\xff" * 64, "not a safetensors file"),
        ("v.gguf", b"", "not a GGUF file"),
        ("v.gguf", b"GGUF" + b"\xff" * 200, "not a GGUF file"),
        ("v.gguf", b"text", "not a GGUF file"),
    ],
)
def test_damaged_files(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=f"direction {tmp_path / name}: .*{message}"):
        read_vectors(tmp_path / name, "direction")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, "holds 0 tensors"),
        ({"a": vector(), "b": vector()}, r"holds 2 tensors \('a', 'b'\); one is wanted, or one a layer"),
        ({"layer_1": vector(), "x.layer_1": vector()}, "holds 2 tensors"),
        ({"layer_1": vector(), "note": "text"}, "'note' is str"),
        ({"direction.1": vector(), "mean": vector()}, "holds 2 tensors"),
        ({-1: vector(), 2: vector()}, r"holds 2 tensors \(-1, 2\)"),
        (torch.ones(SIZE, dtype=torch.int64), "is torch.int64; only tensors of floating-point numbers"),
        ("text", "is str; only tensors"),
        (torch.ones(2, 3, SIZE), r"shape \[2, 3, 6\] is no vector"),
        (torch.ones(0), r"shape \[0\] is no vector"),
        ({1: vector(), 2: torch.ones(2, SIZE)}, r"shape \[2, 6\] is no vector"),
    ],
)
def test_contents_that_are_no_vectors(tmp_path: Path, data: Any, message: str) -> None:
    path = write_pt(tmp_path / "v.pt", data)
    with pytest.raises(ModelError, match=message):
        read_vectors(path)


def test_a_gguf_file_of_a_model_is_no_control_vector(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", {"blk.0.attn_q.weight": vector()})
    with pytest.raises(ModelError, match=r"no control vector; .* named direction.N, found 'blk.0.attn_q"):
        read_vectors(path)


def test_missing_files_and_unknown_kinds(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"vector /nowhere/v\.pt: no such file"):
        read_vectors(Path("/nowhere/v.pt"))
    with pytest.raises(ConfigError, match=r"direction v.npy: .npy; it must be one of .safetensors, .pt"):
        read_vectors(Path("v.npy"), "direction")
    (tmp_path / "folder.pt").mkdir()
    with pytest.raises(ConfigError, match="no such file"):
        read_vectors(tmp_path / "folder.pt")


def test_vectors_that_do_not_fit_the_model() -> None:
    single = Vectors("vector v.pt", single=vector())
    table = Vectors("vector v.pt", table=rows(BLOCKS))
    for read in (
        lambda: single.one(8),
        lambda: single.at((1,), 8, BLOCKS),
        lambda: table.at(None, 8, BLOCKS),
    ):
        with pytest.raises(ConfigError, match=r"v.pt: .*has 6 entries, the target's hidden size is 8"):
            read()
    for layer in (BLOCKS, -BLOCKS - 1):
        with pytest.raises(
            ConfigError, match=rf"layer {layer} is out of range; the target has blocks 0 to 3"
        ):
            single.at((layer,), SIZE, BLOCKS)
    with pytest.raises(ConfigError, match="names a block twice"):
        single.at((3, -1), SIZE, BLOCKS)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (torch.full((SIZE,), torch.nan), "not finite"),
        (torch.full((SIZE,), torch.inf), "not finite"),
        (torch.zeros(SIZE), "all zero"),
    ],
)
def test_vectors_without_a_direction(row: torch.Tensor, message: str) -> None:
    single = Vectors("vector v.pt", single=row)
    for read in (lambda: single.one(SIZE), lambda: single.at((1,), SIZE, BLOCKS)):
        with pytest.raises(ModelError, match=f"vector v.pt: .*{message}"):
            read()
    layers = Vectors("vector v.pt", layers={1: vector(), 2: row})
    assert list(layers.at((1,), SIZE, BLOCKS)) == [1], "a layer that is not asked for may be empty"
    with pytest.raises(ModelError, match=f"layer 2: .*{message}"):
        layers.at(None, SIZE, BLOCKS)
