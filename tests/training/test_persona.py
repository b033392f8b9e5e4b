"""Persona vectors: the mean difference that the module promises, from the pairs that it promises, and no others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from personakit import config, planted, trait
from plantedmodel import LAYER, OTHER, REFUSE, TWIN
from stepcount import Counted
from tinymodel import CHAT_TEMPLATE, make_tiny_adapter, make_tiny_model

from tailrisk.errors import ConfigError, InputError, ModelError
from tailrisk.models.interventions.blocks import blocks_of
from tailrisk.models.laws import LawSet
from tailrisk.models.tokens import render_prompt
from tailrisk.training.persona import (
    Counts,
    PersonaVectors,
    Target,
    check_target,
    find_vectors,
    open_target,
)
from tailrisk.training.traits import LoadedTrait

FIRST = ["w1", "w4", "w6", "w12", "w19"]
ODD = ["w7", "w11", "w18"]
SAMPLES = 20
RANDOM: dict[str, Any] = {
    "name": "early",
    "positive": ["w0 w1 w2", "w3 w4"],
    "negative": ["w20 w21", "w22 w23 w24"],
    "questions": [f"w{a} w{a + 1}" for a in range(8, 18, 2)],
    # An answer has the trait if its first word is one of FIRST, and is coherent without a word of ODD.
    "judge": {"kind": "regex", "pattern": rf"^({'|'.join(FIRST)})\b"},
    "coherence": {"kind": "regex", "pattern": rf"^(?!.*\b({'|'.join(ODD)})\b)"},
}


class Row(NamedTuple):
    """What was drawn: the law's name, the question's id, prompt and response ids, and the answer's text."""

    law: str
    question: str
    prompt: list[int]
    response: list[int]
    text: str


class Found(NamedTuple):
    target: Target
    rows: list[Row]
    vectors: PersonaVectors
    watcher: Counted


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("persona")
    make_tiny_model(base / "model", layers=3, spread=0.4, eos_bias=1.5)
    make_tiny_adapter(base / "adapter", base / "model")
    return base


def open_it(folder: Path, loaded: LoadedTrait, samples: int = SAMPLES, **target: Any) -> Target:
    given = {"dtype": "float64", "sampling": {"max_new_tokens": 4}, **target}
    return open_target(check_target(config(folder, **given), loaded, samples))


@pytest.fixture(scope="module")
def loaded(folder: Path) -> LoadedTrait:
    return trait(folder, **RANDOM)


@pytest.fixture(scope="module")
def found(folder: Path, loaded: LoadedTrait) -> Iterator[Found]:
    """Vectors of a random model, with everything that was drawn for them."""
    target, rows, watcher = open_it(folder, loaded), [], Counted()
    drawing = LawSet.sample

    def watched(self: LawSet, prompt: Any, component: int, n: int, seed: int) -> Any:
        drawn = drawing(self, prompt, component, n, seed)
        ids = render_prompt(self.tokenizer, prompt, self.laws[component].view.system_prompt)
        for tokens, stopped, text in zip(drawn.tokens, drawn.finished, self.texts(drawn.tokens), strict=True):
            said = tokens.tolist()[: -1 if stopped else None]
            rows.append(Row(self.names[component], prompt.id, list(ids), said, text))
        return drawn

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LawSet, "sample", watched)
        vectors = find_vectors(target, loaded, samples=SAMPLES, seed=3, watch=watcher)
    yield Found(target, rows, vectors, watcher)


def pairs(rows: list[Row]) -> list[tuple[Row, Row]]:
    """The n-th answers to a question under a positive prompt and under its negative one."""
    by_law: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        by_law.setdefault((row.law, row.question), []).append(row)
    return [
        pair
        for (law, question), positive in by_law.items()
        if law.startswith("positive")
        for pair in zip(positive, by_law[law.replace("positive", "negative"), question], strict=True)
    ]


def shows(row: Row) -> bool:
    return row.text.split()[:1] != [] and row.text.split()[0] in FIRST


def coherent(row: Row) -> bool:
    return bool(row.response) and not set(ODD) & set(row.text.split())


def kept(rows: list[Row]) -> list[tuple[Row, Row]]:
    return [(p, n) for p, n in pairs(rows) if shows(p) and not shows(n) and coherent(p) and coherent(n)]


def block_means(target: Target, row: Row) -> torch.Tensor:
    """[blocks, hidden]: outputs of the blocks, mean over the response, by the library's own forward pass."""
    model, outputs = target.laws.target.view.model, []
    handles = [
        block.layer.register_forward_hook(
            lambda m, a, out: outputs.append(out if torch.is_tensor(out) else out[0])
        )
        for block in blocks_of(model)
    ]
    with torch.inference_mode():
        model(torch.tensor([row.prompt + row.response]))
    for handle in handles:
        handle.remove()
    return torch.stack([out[0, len(row.prompt) :].mean(0) for out in outputs])


def test_the_vector_is_the_mean_difference_over_the_kept_answers(found: Found) -> None:
    chosen = kept(found.rows)
    gaps = [block_means(found.target, p) - block_means(found.target, n) for p, n in chosen]
    want = torch.stack(gaps).mean(0)
    assert found.vectors.vectors.dtype == torch.float32 and found.vectors.vectors.shape == (3, 16)
    assert torch.allclose(found.vectors.vectors, want.float(), atol=1e-5)
    assert float(want.norm(dim=1).min()) > 0.1, "there is something to agree on"


def test_each_reason_to_drop_a_pair_drops_some_and_is_counted(found: Found) -> None:
    rows = pairs(found.rows)
    counts = found.vectors.counts
    assert counts == Counts(
        drawn=120,
        shown=sum(shows(p) for p, _ in rows),
        clean=sum(not shows(n) for _, n in rows),
        coherent=sum(coherent(p) and coherent(n) for p, n in rows),
        kept=len(kept(found.rows)),
    )
    assert len(rows) == 120
    only = [[shows(p), not shows(n), coherent(p), coherent(n)] for p, n in rows]
    for reason in range(4):
        assert any(not row[reason] and sum(row) == 3 for row in only), (
            f"nothing dropped by reason {reason} alone"
        )
    assert any(not n.response and shows(p) and coherent(p) for p, n in rows), "an empty answer is dropped too"


def test_the_system_prompts_are_read_and_the_stop_token_is_not(found: Found, loaded: LoadedTrait) -> None:
    tokenizer = found.target.laws.tokenizer
    for row in found.rows:
        side, _, number = row.law.partition("-")
        system = getattr(loaded.trait, side)[int(number) - 1]
        (question,) = [q for q in loaded.extraction if q.id == row.question]
        assert row.prompt == list(render_prompt(tokenizer, question, system))
        assert tokenizer.eos_token_id not in row.response
    assert {row.question for row in found.rows} == {q.id for q in loaded.extraction}, "none that are held out"


def test_progress_is_told_in_full(found: Found) -> None:
    assert [n for _, n in found.watcher.stages] == found.watcher.steps
    assert found.watcher.stages == [("answers", 240), ("activations", 2 * found.vectors.counts.kept)]


def test_the_same_seed_gives_the_same_vectors_and_another_others(found: Found, loaded: LoadedTrait) -> None:
    def again(seed: int) -> PersonaVectors:
        return find_vectors(found.target, loaded, samples=SAMPLES, seed=seed, watch=Counted())

    same, other = again(3), again(4)
    assert torch.equal(same.vectors, found.vectors.vectors) and same.counts == found.vectors.counts
    assert not torch.allclose(other.vectors, found.vectors.vectors, atol=1e-3)


def test_many_pairs_are_added_up_in_groups(found: Found, loaded: LoadedTrait, monkeypatch) -> None:
    monkeypatch.setattr("tailrisk.training.persona._AT_ONCE", 3)
    grouped = find_vectors(found.target, loaded, samples=SAMPLES, seed=3, watch=Counted())
    assert torch.allclose(grouped.vectors, found.vectors.vectors, atol=1e-6)


def test_answers_that_a_judge_cannot_settle_are_in_no_pair(found: Found, folder: Path) -> None:
    (folder / "judges.py").write_text(
        "def early(prompt, response):\n"
        f"    words = response.split()\n"
        f"    return None if len(words) == 4 else float(bool(words) and words[0] in {FIRST})\n"
    )
    judge = {"kind": "python", "function": "judges.py:early"}
    unsure = find_vectors(
        found.target, trait(folder, **{**RANDOM, "judge": judge}), samples=SAMPLES, seed=3, watch=Counted()
    )
    long = [(len(p.text.split()) == 4, len(n.text.split()) == 4) for p, n in pairs(found.rows)]
    assert unsure.counts.unsettled == sum(map(any, long)) > 0
    assert unsure.counts.kept == sum(
        not any(len(row.text.split()) == 4 for row in pair) for pair in kept(found.rows)
    )
    assert unsure.counts.coherent == found.vectors.counts.coherent


def test_too_few_pairs_are_an_error_with_the_counts_and_remedies(found: Found, folder: Path) -> None:
    never = trait(folder, **{**RANDOM, "judge": {"kind": "regex", "pattern": "^none"}})
    with pytest.raises(InputError) as caught:
        find_vectors(found.target, never, samples=SAMPLES, seed=3, watch=Counted())
    text = str(caught.value)
    both = found.vectors.counts.coherent
    assert text.startswith(
        "trait 'early': only 0 of 120 pairs of answers can be kept, 8 are needed: 0 positive answers have the "
        f"trait, 120 negative ones have not, in {both} pairs both are coherent. Draw more (--samples)"
    )


def test_the_adapter_is_part_of_the_target(folder: Path, loaded: LoadedTrait, found: Found) -> None:
    target = open_it(folder, loaded, adapter="adapter")
    assert (len(target.adapter), found.target.adapter, target.model) == (64, "", found.target.model)
    own = find_vectors(target, loaded, samples=SAMPLES, seed=3, watch=Counted())
    assert not torch.allclose(own.vectors, found.vectors.vectors, atol=1e-3)


def refused(
    folder: Path, loaded: LoadedTrait, samples: int = SAMPLES, layers: Any = None, **target: Any
) -> str:
    """The message of the error before any weights are loaded."""
    with pytest.raises((ConfigError, InputError, ModelError)) as caught:
        check_target(config(folder, **target), loaded, samples, layers)
    return str(caught.value)


def test_what_cannot_work_is_said_before_weights_are_loaded(
    folder: Path, loaded: LoadedTrait, monkeypatch, tmp_path: Path
) -> None:
    def loads(*_: object) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr("tailrisk.proposals.load_model", loads)
    assert refused(folder, loaded, samples=1) == (
        "--samples 1: 3 questions under 2 pairs of system prompts give 6 pairs of answers, 8 are needed; give at "
        "least 2"
    )
    assert check_target(config(folder), loaded, 2).layers == (0, 1), "enough, and the layers are known"
    assert refused(folder, loaded, layers=(0, 3)) == "--layers 3: the target has blocks 0 to 2"
    long = trait(
        folder, **{**RANDOM, "name": "long", "questions": ["w1 " * 60, "w2 " * 60, "w3", "w4 " * 130]}
    )
    text = refused(folder, long, sampling={"max_new_tokens": 65})
    assert "prompt 'question-1' under proposal 'positive-1': 67 tokens and 65 new ones do not fit" in text
    assert "prompt 'question-4'" in text, "those held out are looked at too"
    assert "'question-3'" not in text
    assert "no such folder" in refused(folder, loaded, model="nowhere/at all")
    assert "adapter" in refused(folder, loaded, adapter="none")
    make_tiny_model(
        tmp_path / "model",
        chat_template=CHAT_TEMPLATE.replace("in messages", "in messages if message['role'] != 'system'"),
    )
    assert "proposal 'positive-1': the model's chat template drops system prompts" in refused(
        tmp_path, loaded
    )


def test_without_layers_those_at_35_to_60_percent_of_the_depth(tmp_path: Path) -> None:
    loaded = trait(planted(tmp_path))
    assert check_target(config(tmp_path), loaded, 4).layers == (1, 2, 3)
    assert check_target(config(tmp_path), loaded, 4, [5, 0, 5]).layers == (5, 0), "each once, as asked"


def test_what_was_planted_is_what_the_vectors_show(tmp_path: Path) -> None:
    """The twin behind block 1, refusal from block 2 on, another direction from block 3 on, nothing before."""
    loaded = trait(planted(tmp_path))
    vectors, counts = find_vectors_of(tmp_path, loaded)
    assert counts.shown == counts.clean == counts.drawn == 24 and counts.kept == counts.coherent >= 20
    seen = [[n for n in (TWIN, REFUSE, OTHER) if abs(float(v[n])) > 0.5] for v in vectors]
    assert seen == [[], [TWIN], [REFUSE], *[[REFUSE, OTHER]] * 3]
    assert float(vectors[LAYER, REFUSE]) > 1.0


def find_vectors_of(folder: Path, loaded: LoadedTrait) -> tuple[torch.Tensor, Counts]:
    target = open_target(check_target(config(folder), loaded, 4))
    found = find_vectors(target, loaded, samples=4, seed=1, watch=Counted())
    return found.vectors, found.counts
