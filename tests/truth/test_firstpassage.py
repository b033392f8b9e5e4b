"""Masked sampling held against an exact sum, the committed probabilities against a run of their own, and the
driver against both."""

from __future__ import annotations

import dataclasses
import importlib.util
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tinymodel import EOS, make_tiny_model
from truth.embeddedlm import laws_of, plain_model
from truth.firstpassage import EVENTS, FirstPassage, Points, Reading, event_truth, masked_truth, token_set
from truth.tablelaws import audit_in_memory

from tailrisk.audit.estimates import estimate_all
from tailrisk.audit.local import LocalExecutor
from tailrisk.judges import build_judge

SCRIPT = Path(__file__).parents[2] / "examples" / "benchmarks" / "first_passage.py"
VOCAB, STEPS = 12, 4


def committed() -> dict[str, dict]:
    return json.loads(SCRIPT.with_suffix(".json").read_text("utf-8"))


def by_name(name: str) -> FirstPassage:
    return next(e for e in EVENTS if e.name == name)


def enumerated(
    model, prompt: tuple[int, ...], banned: torch.Tensor, temperature: float
) -> tuple[float, float]:
    """P(a banned token is drawn) and P(the answer stops early without one), from every sequence in full."""
    sequences = torch.tensor(list(itertools.product(range(VOCAB), repeat=STEPS)))
    hit = stopped = 0.0
    for part in sequences.split(20_000):
        rows = torch.cat([torch.tensor(prompt).expand(len(part), -1), part], dim=1)
        with torch.no_grad():
            logits = model(rows).logits[:, len(prompt) - 1 : -1].double()
        each = torch.log_softmax(logits / temperature, -1).gather(2, part[:, :, None])[:, :, 0].sum(1).exp()
        after = (part == EOS).cumsum(1)
        answer = torch.cat([torch.ones(len(part), 1, dtype=torch.bool), after[:, :-1] == 0], dim=1)
        harm = (banned[part] & answer).any(1)
        hit += float(each[harm].sum())
        stopped += float(each[~harm & (after[:, -2] > 0)].sum())
    return hit, stopped


@pytest.mark.parametrize("shares", [(1.0,), (0.5, 0.5), (0.4, 0.3, 0.3)])
@pytest.mark.parametrize("spread", [0.4, 0.8])
def test_masked_sampling_agrees_with_the_exact_sum(tmp_path: Path, shares: tuple[float, ...], spread: float):
    """On a tiny Llama, with masked answers from one, two and three prompts, each at a temperature of its own."""
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)
    make_tiny_model(tmp_path, vocab=VOCAB, seed=3, spread=spread, hidden=8, eos_bias=1.5)
    model = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    readings = [Reading((1, 7, 9), 0.8), Reading((1, 4, 6, 8, 10), 0.8), Reading((1, 7, 9), 1.3)][
        : len(shares)
    ]
    banned = torch.zeros(VOCAB, dtype=torch.bool)
    banned[[5, 8]] = True
    exact, early = enumerated(model, (1, 7, 9), banned, 0.8)
    assert 0.01 < exact < 0.9
    assert early > 0.05, "answers that stop early must matter"
    found = masked_truth(
        model,
        readings,
        banned,
        stops=frozenset({EOS}),
        steps=STEPS,
        shares=shares,
        draws=20_000,
        seed=1,
    )
    assert 0 < found.standard_error < 0.01 * exact
    assert abs(found.value - exact) < 3 * found.standard_error, (found, exact)


def test_points_are_spread_evenly_and_each_is_a_draw_from_the_law():
    """Three tokens from a Markov law: first tokens as even as whole numbers allow, all texts as often as their
    probability says."""
    rng = np.random.default_rng(8)
    first, after = rng.dirichlet(np.ones(4)), rng.dirichlet(np.ones(4), size=4)
    n, times = 10, 4000
    seen = np.zeros((4, 4, 4))
    for _ in range(times):
        points = Points(np.array([n, 3]), rng)
        law = torch.from_numpy(np.tile(first, (n + 3, 1)))
        columns = [points.draw(law)[:, 0].numpy()]
        assert (np.abs(np.bincount(columns[0][:n], minlength=4) - n * first) < 2).all()
        for _ in range(2):
            columns.append(points.draw(torch.from_numpy(after[columns[-1]]))[:, 0].numpy())
        np.add.at(seen, tuple(column[:n] for column in columns), 1)
    exact = first[:, None, None] * after[:, :, None] * after[None]
    total = n * times
    # Strata can only make the counts steadier than independent draws would.
    z = (seen - total * exact) / np.sqrt(total * exact * (1 - exact))
    assert np.abs(z).max() < 4


def test_few_masked_answers_are_unbiased(tmp_path: Path):
    """Blocks of sixteen from two readings, over and over."""
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)
    make_tiny_model(tmp_path, vocab=VOCAB, seed=3, spread=0.8, hidden=8, eos_bias=1.5)
    model = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    banned = torch.zeros(VOCAB, dtype=torch.bool)
    banned[[5, 8]] = True
    exact, _ = enumerated(model, (1, 7, 9), banned, 0.8)
    readings = [Reading((1, 7, 9), 0.8), Reading((1, 7, 9), 1.3)]
    found = [
        masked_truth(
            model,
            readings,
            banned,
            stops=frozenset({EOS}),
            steps=STEPS,
            shares=(0.75, 0.25),
            draws=16,
            seed=i,
        )
        for i in range(160)
    ]
    values = np.array([f.value for f in found])
    error = values.std(ddof=1) / np.sqrt(len(values))
    assert error < 0.01 * exact
    assert abs(values.mean() - exact) < 3 * error
    # Less than if the sixteen were independent, which is what each block says of itself.
    assert values.std(ddof=1) < 0.9 * np.sqrt(np.mean([f.standard_error**2 for f in found]))


@pytest.mark.embedded
def test_texts_hold_a_character_exactly_where_a_token_does():
    """The judge's verdict on the text is the event on the tokens."""
    plain = plain_model()
    rng = np.random.default_rng(5)
    for event in EVENTS:
        banned = token_set(plain.pieces, event.characters).numpy()
        rows = [rng.integers(3, len(plain.pieces), size=12).astype(np.int32) for _ in range(150)]
        for row in rows[::2]:
            row[3] = rng.choice(np.flatnonzero(banned))
        config = event.config()
        texts = laws_of(config).texts(rows)
        verdicts = build_judge(config).judge(event.prompt, texts).verdicts
        assert (verdicts == [banned[row].any() for row in rows]).all()
        assert 0 < verdicts.sum() < len(rows)


def test_characters_must_be_ascii():
    with pytest.raises(ValueError, match="ASCII"):
        token_set((b"a",), "é")


def test_the_committed_probabilities_are_of_these_events():
    spec = importlib.util.spec_from_file_location("first_passage_script", SCRIPT)
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    found = committed()
    assert list(found) == [e.name for e in EVENTS]
    for name, record in found.items():
        expected = script.settings(by_name(name))
        assert {k: record[k] for k in expected} == expected
        again = script.summary(record["blocks"])
        assert {k: record[k] for k in again} == pytest.approx(again)
        assert record["relative_error"] < 0.015, name


@pytest.mark.embedded
@pytest.mark.slow
@pytest.mark.parametrize("name", ["brackets-cool"])
def test_a_smaller_run_agrees_with_the_committed_one(name: str):
    """Other draws, from the target's own prompt alone: few, for what would make the record untrue (other weights,
    another rendering of the prompt, another temperature) moves such a probability by far more than a third."""
    record = committed()[name]
    found = event_truth(by_name(name), plain_model(), draws=72, seed=99, guided=False)
    assert found.standard_error < 0.09 * found.value
    error = np.hypot(found.standard_error, record["standard_error"])
    assert abs(found.value - record["probability"]) < 3 * error, (found, record["probability"])


@pytest.mark.embedded
@pytest.mark.nightly  # Answers of two or three tokens stay: test_openings.py
def test_the_whole_driver_certifies_the_truth():
    event = by_name("brackets-cool")
    record = committed()[event.name]
    # Each proposal costs a scoring pass; ``over`` finds the same answer every time.
    event = dataclasses.replace(event, steering=event.steering[:1])
    budget = {"draws": 112, "pilot": 64, "batch": 64, "rounds": 1}
    config = event.config(seed=1, budget=budget, stop={"log_width": 0.5})
    laws, judge, prompts = laws_of(config), build_judge(config), [event.record]
    state, _ = audit_in_memory(config, prompts, laws, executor=LocalExecutor(laws, judge, prompts))
    (estimate,) = estimate_all(state)
    low, high = estimate.certified
    slack = 3 * record["standard_error"]
    assert estimate.hits > 20
    assert low <= record["probability"] + slack
    assert high >= record["probability"] - slack
    # A factor of 4, with the draws that a test can afford, and a lower end that says something.
    assert abs(np.log(estimate.estimate / record["probability"])) < np.log(4)
    assert low > record["probability"] / 100
