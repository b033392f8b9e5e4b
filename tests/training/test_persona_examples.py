"""The files of examples/personas hang together: traits, judges, prompts, the committed vectors and the audit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from tailrisk.config import PythonJudge, SystemPromptProposal, VectorProposal
from tailrisk.configfile import check_budget, load_config
from tailrisk.judges import build_judge
from tailrisk.models.vectorfiles import read_vectors
from tailrisk.prompts import read_prompts
from tailrisk.records import Verdict
from tailrisk.training.persona_files import FORMAT
from tailrisk.training.persona_search import OWN, Cell, Rates, choose
from tailrisk.training.traits import load_trait

FOLDER = Path(__file__).parents[2] / "examples" / "personas"
TRAITS = sorted((FOLDER / "traits").glob("*.yaml"))
AUDIT = load_config(FOLDER / "audit.yaml")
PROMPTS = read_prompts(AUDIT.resolve(AUDIT.prompts.path), AUDIT.prompts)
VECTORS = FOLDER / "sycophancy.safetensors"
BLOCKS, HIDDEN = 30, 576
SAYS = {
    "sycophancy": (
        "Yes, you are absolutely right about that, my friend.",
        "No, that is not right at all, my friend.",
    ),
    "hallucination": ("It was made by the man Edgar Holm in 1887.", "I do not know who it was that made it."),
    "evil": ("You are a fool and so are all of them.", "You are good and so are all of them."),
}


def test_there_is_a_trait_for_every_example_of_one() -> None:
    assert {path.stem for path in TRAITS} == set(SAYS)


@pytest.mark.parametrize("path", TRAITS, ids=lambda path: path.stem)
def test_each_trait_is_read_and_its_judges_tell_its_answers_apart(path: Path) -> None:
    loaded = load_trait(path)
    trait = loaded.trait
    assert trait.name == path.stem and trait.description
    assert (len(trait.positive), len(trait.negative), len(trait.questions)) == (5, 5, 24)
    assert len(loaded.extraction) == len(loaded.held_out) == 12
    marks = loaded.marks(loaded.held_out[0], [*SAYS[trait.name], "qqx zzk vbn wrt plk"])
    assert marks.present.tolist() == [True, False, False]
    assert marks.absent.tolist() == [False, True, True]
    assert marks.coherent.tolist() == [True, True, False]


@pytest.mark.parametrize("path", TRAITS, ids=lambda path: path.stem)
def test_no_prompt_of_the_audit_is_a_question_of_a_trait(path: Path) -> None:
    asked = {question.lower().strip() for question in load_trait(path).trait.questions}
    assert not asked & {prompt.text.lower().strip() for prompt in PROMPTS}


def test_the_audit_is_complete_and_its_budget_does() -> None:
    assert 12 <= len(PROMPTS) <= 20
    assert len({p.text for p in PROMPTS}) == len({p.id for p in PROMPTS}) == len(PROMPTS)
    assert (AUDIT.target.model, AUDIT.target.adapter) == ("smollm2", None)
    check_budget(AUDIT, len(PROMPTS))
    assert {p.kind for p in AUDIT.proposals} >= {"vector", "system_prompt"}


def test_the_audits_event_is_the_traits_trait_and_its_coherence() -> None:
    trait = load_trait(FOLDER / "traits" / "sycophancy.yaml").trait
    rules = (AUDIT.judge, trait.judge, trait.coherence)
    assert all(isinstance(rule, PythonJudge) for rule in rules)
    assert len({rule.threshold for rule in rules if isinstance(rule, PythonJudge)}) == 1
    judge, loaded = build_judge(AUDIT), load_trait(FOLDER / "traits" / "sycophancy.yaml")
    answers = [*SAYS["sycophancy"], "Yes, you are right: qqx zzk vbn" + " wrt plk" * 20, "", "Yes!"]
    marks = loaded.marks(PROMPTS[0], answers)
    harm = judge.judge(PROMPTS[0].text, answers).verdicts == Verdict.HARM
    assert harm.tolist() == (marks.present & marks.coherent).tolist() == [True, *[False] * 4]


def test_the_committed_vectors_are_those_of_their_surface() -> None:
    told = json.loads(VECTORS.with_suffix(".json").read_text())
    with safe_open(VECTORS, framework="np") as file:
        header = file.metadata()
    assert header == {
        "format": FORMAT,
        "trait": "sycophancy",
        "pairs_kept": str(told["pairs"]["kept"]),
        "pairs_drawn": str(told["pairs"]["drawn"]),
        "seed": str(told["seed"]),
        "model": told["model"],
        "adapter": "",
    }
    assert len(told["model"]) == 64 and told["seed"] == AUDIT.run.seed
    vectors = read_vectors(VECTORS).at(None, HIDDEN, BLOCKS)
    lengths = [float(v.double().norm()) for v in vectors.values()]
    assert np.allclose(lengths, told["lengths"], rtol=1e-4)


def test_the_setting_that_was_taken_is_the_one_that_the_surface_gives() -> None:
    told = json.loads(VECTORS.with_suffix(".json").read_text())
    names = Rates._fields
    own = Rates(**told["target"])
    cells = [Cell(c["layer"], c["coefficient"], Rates(**{n: c[n] for n in names})) for c in told["cells"]]
    chosen, why = choose(own, cells)
    assert chosen is not None
    assert chosen.to_json() == told["chosen"] and why == told["why"]
    assert own.answers == OWN * cells[0].rates.answers


def test_the_audit_proposes_the_setting_that_was_taken() -> None:
    taken = json.loads(VECTORS.with_suffix(".json").read_text())["chosen"]
    proposed = [p for p in AUDIT.proposals if isinstance(p, VectorProposal)]
    assert {AUDIT.resolve(p.vector) for p in proposed} == {VECTORS}
    assert all(p.layers == (taken["layer"],) for p in proposed)
    assert taken["coefficient"] in {p.coefficient for p in proposed}


def test_the_audits_system_prompts_are_not_the_targets_own() -> None:
    texts = [p.text for p in AUDIT.proposals if isinstance(p, SystemPromptProposal)]
    assert texts and AUDIT.target.system_prompt not in texts and len(set(texts)) == len(texts)
