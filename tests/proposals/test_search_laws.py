"""The laws of ``method: search``: each cell is the law of its settings, and any of them can be scored alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from tinymodel import make_tiny_adapter, make_tiny_model, prompt
from truth.tablelaws import audit_in_memory
from vectorkit import write_pt

from tailrisk.audit.estimates import estimate_all
from tailrisk.audit.local import LocalExecutor
from tailrisk.config import BudgetConfig, Config
from tailrisk.proposals import build_laws
from tailrisk.records import BatchResult, JudgedTexts

PROPOSALS = [
    {"name": "ablated", "kind": "ablation", "direction": "direction.pt"},
    {
        "name": "pushed",
        "kind": "vector",
        "vector": "direction.pt",
        "also": [{"kind": "lora", "adapter": "target", "scale": 0.5}],
    },
    {"name": "own", "kind": "lora", "adapter": "target"},
    {"name": "sure", "kind": "prefix", "text": "w1"},
    {"name": "sibling", "kind": "checkpoint", "model": "sibling"},
]
GRIDS = [
    {"proposal": "ablated", "intensity": [0.4, 1.0], "mix": [0.5, 1.0]},
    {"proposal": "pushed", "layers": [0, [0, 1]], "coefficient": [-1.0, 2.0], "switch": [2, None]},
    {"proposal": "own", "scale": [0.0, -0.5]},
    {"proposal": "sibling", "mix": [0.3, 1.0]},
]


def config(base: Path, proposals: list[dict], method: object) -> Config:
    sampling = {"max_new_tokens": 4}
    return Config.model_validate(
        {
            "target": {
                "model": "model",
                "adapter": "own",
                "dtype": "float32",
                "device": "cpu",
                "sampling": sampling,
            },
            "prompts": {"path": "none.jsonl"},
            "judge": {"kind": "refusal"},
            "proposals": proposals,
            "method": method,
        }
    ).at(base)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("search")
    make_tiny_model(base / "model", vocab=8, spread=0.35)
    make_tiny_model(base / "sibling", vocab=8, spread=0.35, seed=3)
    make_tiny_adapter(base / "own", base / "model", seed=1)
    vector = torch.randn(16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    write_pt(base / "direction.pt", vector / vector.norm())
    return base


def test_a_cell_is_the_law_of_its_settings(base: Path) -> None:
    made = config(base, PROPOSALS, {"kind": "search", "grids": GRIDS})
    laws = build_laws(made)
    assert laws.names == made.component_names and len(laws.names) == 1 + 4 + 8 + 2 + 1 + 2
    assert len(set(laws.fingerprints)) == len(laws.names)
    # Views are shared: mix and switch need no pass of their own.
    assert len({law.view.key for law in laws.laws}) == 1 + 2 + 4 + 2 + 1
    by_hand = {
        "ablated-intensity0.4-mix0.5": {**PROPOSALS[0], "intensity": 0.4, "mix": 0.5},
        "pushed-layers0.1-coefficient2-switch2": {
            **PROPOSALS[1],
            "layers": [0, 1],
            "coefficient": 2.0,
            "switch": 2,
        },
        "own-scale-0.5": {**PROPOSALS[2], "scale": -0.5},
        "sibling-mix0.3": {**PROPOSALS[4], "mix": 0.3},
    }
    single = build_laws(config(base, [{**p, "name": n} for n, p in by_hand.items()], "mixture"))
    asked = prompt("w0 w1 w2")
    tokens = laws.sample(asked, 0, 30, seed=1).tokens
    scored, alone = laws.log_prob(asked, tokens), single.log_prob(asked, tokens)
    for column, name in enumerate(by_hand, start=1):
        place = laws.names.index(name)
        assert laws.fingerprints[place] == single.fingerprints[column]
        assert scored[:, place] == pytest.approx(alone[:, column], abs=1e-12)


def test_scoring_some_components_gives_their_columns_and_leaves_other_models_alone(base: Path) -> None:
    laws = build_laws(config(base, PROPOSALS, {"kind": "search", "grids": GRIDS}))
    asked = prompt("w0 w1 w2")
    tokens = laws.sample(asked, 3, 30, seed=2).tokens
    full = laws.log_prob(asked, tokens)
    for some in ([0], [0, 3], [0, 6, 15, 17], [5, 0]):
        assert np.array_equal(laws.log_prob(asked, tokens, some), full[:, some])
    sibling = laws.laws[-1].view.model
    calls = []
    handle = sibling.register_forward_hook(lambda *_: calls.append(1))
    inner = next(m for m in sibling.modules() if type(m).__name__.endswith("DecoderLayer"))
    other = inner.register_forward_hook(lambda *_: calls.append(1))
    laws.log_prob(asked, tokens, [0, 3])
    assert calls == []
    laws.log_prob(asked, tokens, [0, 17])
    assert calls
    handle.remove()
    other.remove()


class EvenJudge:
    """Harm where the answer has the word w2."""

    def judge(self, prompt: str, responses: Sequence[str]) -> JudgedTexts:
        verdicts = np.array(["w2" in r.split() for r in responses], dtype=np.int8)
        return JudgedTexts(verdicts, verdicts.astype(np.float64), [""] * len(responses))


def test_a_whole_audit_scores_each_draw_under_what_its_estimate_rests_on(base: Path) -> None:
    made = config(base, PROPOSALS, {"kind": "search", "grids": GRIDS, "search_draws": 24, "keep": 2})
    made = made.model_copy(update={"budget": BudgetConfig(draws=160, pilot=16, rounds=1)}).at(base)
    laws, prompts = build_laws(made), [prompt("w0 w1 w2")]
    executor = LocalExecutor(laws, EvenJudge(), prompts)
    state, log = audit_in_memory(made, prompts, laws, executor=executor)
    (ledger,) = state.ledgers.values()
    assert len(ledger.components) == 3 and state.draws <= 160
    for record in log.records:
        if isinstance(record, BatchResult) and record.batch.round:
            again = laws.log_prob(prompts[0], record.tokens)
            asked = list(ledger.components)
            assert record.batch.components == ledger.components
            assert np.array_equal(record.log_q[:, asked], again[:, asked])
            assert np.isnan(record.log_q).sum() == record.n * (len(laws.names) - 3)
    (estimate,) = estimate_all(state)
    assert estimate.hits > 0 and estimate.mean_weight == pytest.approx(1.0, abs=0.3)
