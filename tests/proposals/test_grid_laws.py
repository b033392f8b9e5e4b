"""The laws of a grid: each is the law its settings would give on their own, and hundreds cost little."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from tinymodel import make_tiny_adapter, make_tiny_model, prompt

from tailrisk.config import Config
from tailrisk.models.density import Mixtures
from tailrisk.models.directions import Direction, save_direction
from tailrisk.models.laws import LawSet
from tailrisk.proposals import build_laws

KINDS = {
    "ablation": ({"kind": "ablation", "direction": "direction.safetensors"}, {"intensity": [0.4, 1.0]}),
    "lora": ({"kind": "lora", "adapter": "target"}, {"scale": [0.0, -0.5]}),
    "vector": (
        {"kind": "vector", "vector": "direction.safetensors", "layers": [0], "tokens": "response"},
        {"coefficient": [-1.0, 2.0]},
    ),
    "combined": (
        {
            "kind": "ablation",
            "direction": "direction.safetensors",
            "form": "writes",
            "also": [
                {"kind": "system_prompt", "text": "w3"},
                {"kind": "lora", "adapter": "target", "scale": 0.5},
            ],
        },
        {"intensity": [0.0, 0.5]},
    ),
    "system_prompt": ({"kind": "system_prompt", "text": "w3 w4"}, {}),
    "checkpoint": ({"kind": "checkpoint", "model": "sibling"}, {}),
}
MIXES, SWITCHES = [0.25, 1.0, 0.0], [1, 3, None, 0, 9]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("grid")
    make_tiny_model(base / "model", vocab=8, spread=0.35)
    make_tiny_model(base / "sibling", vocab=8, spread=0.35, seed=3)
    make_tiny_adapter(base / "own", base / "model", seed=1)
    vector = torch.randn(16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    save_direction(base / "direction.safetensors", Direction(vector / vector.norm(), layer=1, model="x"))
    return base


def config(base: Path, proposals: list[dict], method: object) -> Config:
    return Config.model_validate(
        {
            "target": {
                "model": "model",
                "adapter": "own",
                "dtype": "float32",
                "device": "cpu",
                "sampling": {"max_new_tokens": 5},
            },
            "prompts": {"path": "none.jsonl"},
            "judge": {"kind": "refusal"},
            "proposals": proposals,
            "method": method,
        }
    ).at(base)


def grid(base: Path, kind: str) -> tuple[LawSet, LawSet]:
    """The laws of a grid, and the same ones each configured by hand."""
    proposal, strengths = KINDS[kind]
    axes = {**strengths, "mix": MIXES, "switch": SWITCHES}
    made = config(base, [{"name": "q", **proposal}], {"kind": "paper", "grid": axes})
    by_hand = []
    for strength in next(iter(strengths.values()), [None]):
        for mix in (m for m in MIXES if m):
            for switch in (s for s in SWITCHES if s != 0):
                own = {} if strength is None else {next(iter(strengths)): strength}
                name = made.component_names[1 + len(by_hand)]
                by_hand.append({**proposal, **own, "name": name, "mix": mix, "switch": switch})
    return build_laws(made), build_laws(config(base, by_hand, "mixture"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_cell_is_the_law_of_its_settings(base: Path, kind: str) -> None:
    cells, single = grid(base, kind)
    assert cells.names == single.names and cells.fingerprints == single.fingerprints
    assert len(set(cells.fingerprints)) == len(cells.fingerprints)
    asked = prompt("w0 w1 w2")
    for component in (0, 1, len(cells.names) - 1):
        drawn = cells.sample(asked, component, 24, seed=component)
        again = single.sample(asked, component, 24, seed=component)
        assert [t.tolist() for t in drawn.tokens] == [t.tolist() for t in again.tokens]
        scored = cells.log_prob(asked, drawn.tokens)
        assert scored == pytest.approx(single.log_prob(asked, drawn.tokens), abs=1e-12)
        assert scored[:, component] == pytest.approx(drawn.log_q, abs=1e-4)


def test_cells_of_a_strength_share_one_view(base: Path) -> None:
    cells, _ = grid(base, "checkpoint")
    assert len({id(law.view.model) for law in cells.laws}) == 2, "the checkpoint is loaded once"
    ablated, _ = grid(base, "ablation")
    assert len({law.view.key for law in ablated.laws}) == 3


def by_the_book(p, phi, mix, switch):
    """Token by token, in Python."""
    total = 0.0
    for t, (a, b) in enumerate(zip(phi, p, strict=True)):
        early = switch is None or t < switch
        if not early:
            total += b
        elif mix == 1.0:
            total += a
        else:
            total += np.logaddexp(np.log(mix) + a, np.log(1 - mix) + b)
    return total


def test_the_shared_sums_are_the_token_by_token_definition() -> None:
    """Responses of all lengths, tokens that one or both of the laws rule out, switches beyond the end."""
    rng = np.random.default_rng(2)
    lengths = [1, 1, 2, 5, 17, 150, 150, 3]
    target = [-rng.gamma(1.0, 2.0, n) for n in lengths]
    own = [-rng.gamma(1.0, 2.0, n) for n in lengths]
    for rows, row, at in ((target, 3, 4), (own, 3, 2), (target, 6, 149), (own, 6, 149), (own, 0, 0)):
        rows[row][at] = -np.inf
    mixtures = Mixtures(target)
    for mix in (1e-6, 0.3, 1.0):
        for switch in (1, 2, 5, 149, 150, 400, None):
            got = mixtures.log_prob("own", own, mix, switch)
            want = np.array([by_the_book(p, q, mix, switch) for p, q in zip(target, own, strict=True)])
            assert not np.isnan(got).any()
            assert np.array_equal(np.isneginf(got), np.isneginf(want))
            seen = np.isfinite(want)
            assert got[seen] == pytest.approx(want[seen], rel=1e-12, abs=1e-12)


def test_hundreds_of_cells_cost_little() -> None:
    """10 views x 24 mixes x 30 switches for a batch of 64 answers of 150 tokens: as published."""
    rng = np.random.default_rng(0)
    views = [[-rng.gamma(1.0, 2.0, 150) for _ in range(64)] for _ in range(11)]
    began = time.process_time()
    mixtures = Mixtures(views[0])
    for view in range(1, 11):
        for mix in np.linspace(0, 1, 25)[1:].tolist():
            for switch in range(5, 151, 5):
                mixtures.log_prob(view, views[view], mix, switch)
    assert time.process_time() - began < 3.0


def test_a_grid_travels_as_plain_json(base: Path) -> None:
    made = config(
        base, [{"name": "q", **KINDS["lora"][0]}], {"kind": "paper", "grid": {"scale": [0.1 + 0.2]}}
    )
    again = Config.model_validate(json.loads(json.dumps(made.model_dump(mode="json"))))
    assert again.component_names == made.component_names
