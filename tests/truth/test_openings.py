"""Enumerated openings: the enumeration itself, then the statistics and the whole driver held against it."""

from __future__ import annotations

import itertools
from functools import cache
from typing import cast

import numpy as np
import pytest
import torch
from tinymodel import EOS, make_tiny_model
from transformers import PreTrainedModel
from truth.embeddedlm import laws_of, plain_model, pool, replications
from truth.openings import EVENTS, Opening, enumerate_opening, opening_truth, replicated
from truth.tablelaws import audit_in_memory

from tailrisk.audit.estimates import estimate_all
from tailrisk.audit.local import LocalExecutor
from tailrisk.judges import build_judge
from tailrisk.proposals import build_laws
from tailrisk.stats.estimators import event_mean, weight_mean

PIECES = (
    b"",
    b"",
    b"",
    *(t.encode() for t in ("ab", "a", "b", "ba", "abc", "c", "bc", "é", " ", "cab", "a b")),
)
"""Invented texts of a tiny model's tokens: three special ones, the third of which stops; several ways to say
the same."""
REPLICATIONS = 100


def by_name(name: str) -> Opening:
    return next(e for e in EVENTS if e.name == name)


@cache
def truth_of(name: str) -> float:
    return opening_truth(by_name(name), plain_model()).probability


@pytest.mark.parametrize(
    ("wanted", "whole", "steps"),
    [
        (("ab",), False, 2),
        (("abc", "ba"), True, 2),
        (("abc", "b"), True, 3),
        (("abab", "c"), False, 3),
        (("ba c",), False, 3),
    ],
)
def test_agrees_with_the_sum_over_all_sequences(tmp_path, wanted, whole: bool, steps: int):
    """Brute force on a tiny model: every sequence is passed in full, cut at its first stop token and read."""
    from transformers import AutoModelForCausalLM

    make_tiny_model(tmp_path, vocab=len(PIECES), seed=7, spread=0.5, hidden=8)
    model = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float64).eval()
    prompt = (1, 5, 9)
    sequences = torch.tensor(list(itertools.product(range(len(PIECES)), repeat=steps)))
    rows = torch.cat([torch.tensor(prompt).expand(len(sequences), -1), sequences], dim=1)
    with torch.no_grad():
        law = torch.log_softmax(model(rows).logits[:, len(prompt) - 1 : -1] / 0.7, dim=-1)
    each = law.gather(2, sequences[:, :, None])[:, :, 0].sum(1).exp().numpy()
    assert each.sum() == pytest.approx(1.0, abs=1e-12)
    total = 0.0
    for tokens, p in zip(sequences.tolist(), each.tolist(), strict=True):
        ends = tokens.index(EOS) if EOS in tokens else steps
        text = b"".join(PIECES[t] for t in tokens[:ends]).decode()
        total += p * (text in wanted if whole else text.startswith(wanted))
    found = enumerate_opening(
        model, prompt, PIECES, wanted, whole=whole, stops=frozenset({EOS}), steps=steps, temperature=0.7
    )
    assert 1e-6 < total < 0.9
    assert found.probability == pytest.approx(total, rel=1e-6)
    assert found.missing <= 1e-8 * found.probability
    assert (found.stopped > 0) == whole


def test_only_ascii_texts_can_be_told_from_bytes():
    with pytest.raises(ValueError, match="ASCII"):
        enumerate_opening(
            cast(PreTrainedModel, None),
            (1,),
            PIECES,
            ("é",),
            whole=False,
            stops=frozenset({EOS}),
            steps=2,
        )


@pytest.mark.embedded
def test_token_bytes_are_what_answers_are_decoded_to():
    plain = plain_model()
    rng = np.random.default_rng(0)
    laws = laws_of(EVENTS[0].config())
    rows = [rng.integers(0, len(plain.pieces), size=6).astype(np.int32) for _ in range(500)]
    rows += [np.array([i, 300 + i], dtype=np.int32) for i in range(40)]
    ours = [b"".join(plain.pieces[t] for t in row).decode("utf-8", "replace") for row in rows]
    assert laws.texts(rows) == ours
    assert plain.stops == set(laws.limits.stop_ids)


@pytest.mark.embedded
def test_first_bytes_share_out_all_of_the_first_token():
    """P(the text begins with some ASCII character) and the rest of the vocabulary add up to one."""
    plain = plain_model()
    ids = plain.prompt_ids("Name a color.")
    characters = [chr(c) for c in range(128)]
    found = enumerate_opening(
        plain.model, ids, plain.pieces, characters, whole=False, stops=plain.stops, steps=1
    )
    with torch.inference_mode():
        law = torch.softmax(plain.model(torch.tensor([list(ids)])).logits[0, -1].double(), -1).numpy()
    others = np.array([not piece or piece[0] > 127 for piece in plain.pieces])
    assert others.sum() > 17
    assert found.probability + law[others].sum() == pytest.approx(1.0, abs=1e-6)


@pytest.mark.embedded
def test_the_audited_laws_agree_on_the_enumerated_sequences():
    """Same prompts token by token, same probabilities up to float32, same laws as ``build_laws`` makes."""
    plain = plain_model()
    event = by_name("no")
    laws = laws_of(event.config())
    assert laws.fingerprints == build_laws(event.config()).fingerprints
    for law, system in zip(laws.laws, [None, *(s.text for s in event.steering), None], strict=True):
        assert laws.prompt_ids(event.record, law.view) == plain.prompt_ids(event.prompt, system)
    found = enumerate_opening(
        plain.model,
        plain.prompt_ids(event.prompt),
        plain.pieces,
        event.wanted,
        whole=event.whole,
        stops=plain.stops,
        steps=event.max_new_tokens,
        temperature=event.temperature,
    )
    rows = [np.array(tokens, dtype=np.int32) for tokens in found.sequences]
    assert len(rows) > 1
    scored = laws.log_prob(event.record, rows)[:, 0]
    assert scored == pytest.approx(np.log(list(found.sequences.values())), abs=2e-4)
    verdicts = build_judge(event.config()).judge(event.prompt, laws.texts(rows)).verdicts
    assert verdicts.all()


@pytest.mark.embedded
def test_the_events_begin_at_a_hundredth_and_end_below_a_billionth():
    assert truth_of(EVENTS[0].name) == pytest.approx(1e-2, rel=0.2)
    assert 1e-10 < truth_of(EVENTS[-1].name) < 2e-10


@pytest.mark.embedded
@pytest.mark.nightly
def test_the_events_are_in_order():
    truths = [truth_of(event.name) for event in EVENTS]
    assert truths == sorted(truths, reverse=True)
    assert len(truths) >= 6


def some(*names: str, nightly: tuple[str, ...]) -> list:
    return [*names, *(pytest.param(name, marks=pytest.mark.nightly) for name in nightly)]


@pytest.mark.embedded
@pytest.mark.slow
@pytest.mark.parametrize("name", some("no", "hate-cool", nightly=("i-am", "maybe")))
def test_replications_are_unbiased(name: str):
    """>= 100 independent data sets: their mean is the truth within 3 standard errors of at most 2 %. (The study
    of estimators holds all events.)"""
    event, counts = replicated(by_name(name))
    config = event.config()
    laws = laws_of(config)
    drawn = pool(laws, event.record, build_judge(config), [REPLICATIONS * c for c in counts], seed=11)
    data = replications(drawn, counts, REPLICATIONS)
    ratio = np.array([event_mean([r], corrected=False).value for r in data]) / truth_of(name)
    error = ratio.std(ddof=1) / np.sqrt(len(ratio))
    assert error <= 0.02, (name, ratio.mean(), error, drawn.hits)
    assert abs(ratio.mean() - 1) < 3 * error, (name, ratio.mean(), error, drawn.hits)
    # All weights average to one whatever they are used for.
    whole = weight_mean(replications(drawn, [REPLICATIONS * c for c in counts], 1), corrected=False)
    assert abs(whole.value - 1) < 3 * whole.standard_error


@pytest.mark.embedded
@pytest.mark.slow
@pytest.mark.parametrize("name", some("maybe", nightly=("hate-cool",)))
def test_the_whole_driver_certifies_the_truth(name: str):
    event, _ = replicated(by_name(name))
    budget = {"draws": 400, "pilot": 120, "batch": 256, "rounds": 2}
    config = event.config(seed=3, budget=budget, stop={"log_width": 0.4})
    laws, judge, prompts = laws_of(config), build_judge(config), [event.record]
    state, _ = audit_in_memory(config, prompts, laws, executor=LocalExecutor(laws, judge, prompts))
    (estimate,) = estimate_all(state)
    low, high = estimate.certified
    assert estimate.hits > 50
    assert low <= truth_of(name) <= high
    # Not for want of saying anything: the lower end is within a factor of ten.
    assert low > truth_of(name) / 10
    assert abs(np.log(estimate.estimate / truth_of(name))) < np.log(2)
