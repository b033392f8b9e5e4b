"""The exact toy for ``method: search``: two proposals with grids, one cell of which is the best by far."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import numpy as np
from truth.markov import without
from truth.tablelaws import BEGIN, HARM2, T, TableLaws, gate_of, table, toy_prompts

from tailrisk.config import Config
from tailrisk.records import Prompt
from tailrisk.searchgrid import search_cells

GRIDS = [
    {"proposal": "ablated", "intensity": [0.1, 0.4, 0.8]},
    {"proposal": "pushed", "layers": [1, [2, 3]], "coefficient": [1, 4]},
]
BEST = "ablated-intensity0.8"


def search_config(seed: int = 0, method: dict[str, Any] | None = None, **sections: Any) -> Config:
    return Config.model_validate(
        {
            "run": {"name": "search", "seed": seed},
            "target": {"model": "toy", "dtype": "float64", "sampling": {"max_new_tokens": T}},
            "prompts": {"path": "unused.jsonl"},
            "proposals": [
                {"name": "ablated", "kind": "ablation", "direction": "unused"},
                {"name": "pushed", "kind": "vector", "vector": "unused"},
            ],
            "judge": {"kind": "regex", "pattern": "bomb|poison"},
            "method": {"kind": "search", "search_draws": 40, "keep": 2, "grids": GRIDS, **(method or {})},
            "budget": {"draws": 1200, "pilot": 24, "batch": 64, "rounds": 2},
            "tracking": {"uri": None},
            **sections,
        }
    )


class SearchLaws(TableLaws):
    """The toy's target, its gate opened by the ablation's intensity, and vectors that mostly miss."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.names = config.component_names
        self.fingerprints = tuple(hashlib.sha256(n.encode()).hexdigest() for n in self.names)
        self._cells = search_cells(config)

    def tables(self, prompt: Prompt) -> np.ndarray:
        gate = gate_of(prompt)
        if gate not in self._tables:
            rows = [table(gate)]
            for cell in self._cells:
                rows.append(_cell(gate, cell.values))
            self._tables[gate] = np.stack(rows)
        return self._tables[gate]


def _cell(gate: float, values: dict[str, Any]) -> np.ndarray:
    if "intensity" in values:
        return table(0.9 * gate ** (1.0 - values["intensity"]))
    strong, late = values["coefficient"] > 2, values["layers"] == (2, 3)
    if strong and not late:
        over = table(0.9)
        over[BEGIN] = [0.0005, 0.0005, 0.0005, 0.0005, 0.0005, 0.9974, 0.0001]
        return over
    if late:
        return without(table(0.6, harm=0.16 if strong else 0.1), HARM2)
    return table(min(0.4, 3 * gate))


def grouped(gates: list[float], groups: list[str | None]) -> list[Prompt]:
    return [replace(p, group=g) for p, g in zip(toy_prompts(gates), groups, strict=True)]
