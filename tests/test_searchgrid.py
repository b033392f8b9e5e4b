"""The grids of ``method: search``: cells, names, the strongest, what the configuration refuses, the plan's words."""

from __future__ import annotations

import json
import re

import pytest

from tailrisk.cli.plan import describe, make_plan
from tailrisk.config import Config, SearchMethod
from tailrisk.configfile import check_budget, dump_resolved, load_config
from tailrisk.errors import ConfigError
from tailrisk.records import Prompt
from tailrisk.searchgrid import kept_components, search_cells, strongest_cells
from tailrisk.store import make_manifest

HEAD = """
target: {model: smollm2, sampling: {max_new_tokens: 20}}
prompts: {path: p.jsonl}
judge: {kind: refusal}
budget: {draws: 10000, pilot: 32}
proposals:
  - {name: ablated, kind: ablation, direction: d}
  - {name: own, kind: lora, adapter: target}
  - {name: pirate, kind: vector, vector: v, tokens: response}
  - {name: rude, kind: system_prompt, text: be rude, mix: 0.5}
  - {name: sure, kind: prefix, text: Sure}
"""
GRIDS = """
method:
  kind: search
  grids:
    - {proposal: pirate, coefficient: [1, -2.5], layers: [10, [11, 12], null]}
    - {proposal: ablated, intensity: [0.01, 1], mix: [0.5, 1]}
    - {proposal: own, scale: [0.5, 0], switch: [4, null]}
"""


@pytest.fixture
def load(tmp_path):
    def from_text(text: str, *overrides: str) -> Config:
        path = tmp_path / "audit.yaml"
        path.write_text(text)
        return load_config(path, overrides)

    return from_text


def test_cells_are_those_of_all_proposals_in_their_order(load):
    config = load(HEAD + GRIDS)
    names = config.component_names
    assert names == (
        "target",
        "ablated-intensity0.01-mix0.5",
        "ablated-intensity0.01-mix1",
        "ablated-intensity1-mix0.5",
        "ablated-intensity1-mix1",
        "own-scale0.5-switch4",
        "own-scale0.5-switchall",
        "own-scale0-switch4",
        "own-scale0-switchall",
        "pirate-layers10-coefficient1",
        "pirate-layers10-coefficient-2.5",
        "pirate-layers11.12-coefficient1",
        "pirate-layers11.12-coefficient-2.5",
        "pirate-layersall-coefficient1",
        "pirate-layersall-coefficient-2.5",
        "rude",
        "sure",
    )
    assert [c.component for c in search_cells(config)] == list(range(1, 17))
    assert search_cells(config)[10].values == {"layers": (11, 12), "coefficient": 1.0}
    assert [c.name for c in strongest_cells(config)] == [
        "ablated-intensity1-mix1",
        "own-scale0-switchall",
        "pirate-layers10-coefficient-2.5",
        "rude",
        "sure",
    ]


def test_bare_search_has_one_cell_a_proposal_and_survives_the_manifest(load):
    short = load(HEAD + "method: search")
    assert short.method == SearchMethod() and short.component_names[1:] == (
        "ablated",
        "own",
        "pirate",
        "rude",
        "sure",
    )
    assert kept_components(short) == 4
    assert kept_components(load(HEAD + "method: {kind: search}", "method.keep=9")) == 6
    config = load(HEAD + GRIDS)
    assert Config.model_validate(dump_resolved(config)).component_names == config.component_names
    prompts = [Prompt(id="p", messages=({"role": "user", "content": "hello"},))]
    assert make_manifest(config, prompts).component_names == config.component_names
    assert len(load(HEAD + GRIDS, "method.grids.1.intensity=[1]").component_names) == 15


FAULTS = {
    "unknown field": ("- {proposal: own, scal: [1]}", "method.grids.0.scal: unknown key (nearest known key 'scale')"),
    "field of another kind": (
        "- {proposal: ablated, scale: [1]}",
        "method.grids.0.scale: the proposal 'ablated' is of kind ablation and has no 'scale'; known here: "
        "intensity, mix, switch",
    ),
    "layers of another kind": ("- {proposal: own, layers: [1]}", "has no 'layers'; known here: scale, mix, switch"),
    "empty list": ("- {proposal: own, scale: []}", "method.grids.0.scale"),
    "empty layers": ("- {proposal: pirate, layers: []}", "method.grids.0.layers"),
    "empty grid": ("- {proposal: pirate}", "method.grids.0: the grid of 'pirate' is empty; list values of layers,"),
    "no proposal": ("- {scale: [1]}", "method.grids.0.proposal: this key is required and missing"),
    "unknown proposal": (
        "- {proposal: abl, intensity: [1]}",
        "method.grids.0.proposal: no proposal is named 'abl'; named are ablated, own, pirate, rude, sure",
    ),
    "twice": (
        "- {proposal: own, scale: [1]}\n    - {proposal: own, mix: [0.5]}",
        "method.grids.1.proposal: 'own' has a grid already; join the two",
    ),
    "prefix": ("- {proposal: sure, mix: [0.5]}", "method.grids.0: 'sure' is a prefix, which has nothing to vary"),
    "given twice": (
        "- {proposal: rude, mix: [0.2, 1]}",
        "proposals.3.mix: the grid method.grids.0.mix sets it; give it in one of the two places",
    ),
    "the target": ("- {proposal: own, mix: [0]}", "method.grids.0.mix.0: input should be greater than 0"),
    "no tokens": ("- {proposal: own, switch: [0]}", "method.grids.0.switch.0"),
    "doubled": ("- {proposal: own, scale: [1, 1.0]}", "method.grids.0.scale: a value is given twice"),
    "doubled layers": ("- {proposal: pirate, layers: [3, [3]]}", "method.grids.0.layers: a value is given twice"),
    "too fine": ("- {proposal: own, scale: [0.1, 0.10000001]}", "told apart by six digits"),
    "boolean": ("- {proposal: own, scale: [true]}", "method.grids.0.scale.0"),
    "text": ("- {proposal: pirate, layers: [a]}", "method.grids.0.layers.0"),
}  # fmt: skip


@pytest.mark.parametrize("case", FAULTS)
def test_faults_are_named(load, case):
    grid, message = FAULTS[case]
    with pytest.raises(ConfigError, match=re.escape(message)):
        load(f"{HEAD}method:\n  kind: search\n  grids:\n    {grid}\n")


def test_other_faults(load):
    with pytest.raises(ConfigError, match="none is given; add 'proposals'"):
        load(HEAD.split("proposals:")[0] + "method: search")
    with pytest.raises(ConfigError, match=r"method.keep"):
        load(HEAD + "method: {kind: search, keep: 0}")
    with pytest.raises(ConfigError, match=r"method.per: \"groups\" is not one of prompt, group, all"):
        load(HEAD + "method: {kind: search, per: groups}")
    values = ", ".join(str(i / 200) for i in range(1, 1100))
    with pytest.raises(ConfigError, match=r"1,103 cells in all, more than 1,000"):
        load(HEAD + f"method: {{kind: search, grids: [{{proposal: own, scale: [{values}]}}]}}")
    with pytest.raises(ConfigError, match="unknown key"):
        load(HEAD + "method: {kind: paper, grids: []}")


def test_the_budget_must_hold_search_and_pilot(load):
    config = load(HEAD + GRIDS)
    check_budget(load(HEAD + GRIDS, "budget.draws=960"), 10)
    with pytest.raises(ConfigError, match=r"64 draws a prompt .* pilot of 32 .*, 960 in all for 10 prompts"):
        check_budget(load(HEAD + GRIDS, "budget.draws=959"), 10)
    with pytest.raises(ConfigError, match=r"budget.pilot is 7, .* set budget.pilot to at least 8"):
        check_budget(load(HEAD + GRIDS, "budget.pilot=7"), 10)
    check_budget(config, 10)


def test_the_plan_says_what_is_searched(load):
    config = load(HEAD + GRIDS)
    made = make_plan(config, 10)
    assert (made.method, made.draws, made.search_draws, made.share) == ("search", 10_000, 640, 0.2)
    json.dumps(made._asdict(), allow_nan=False)
    text = "\n".join(describe(config, made))
    assert "at most 3 of 16 cells for each prompt" in text
    assert (
        "17 laws: the target and 16 cells (4 of ablated, 4 of own, 6 of pirate, 1 of rude, 1 of sure)" in text
    )
    assert (
        "at most 10,000: 640 for the search (64 a prompt), then about 936 a prompt, the pilot 32 each" in text
    )
    assert "17 scores of each search draw, then at most 4" in text
