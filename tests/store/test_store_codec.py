from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import storekit as kit
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from tailrisk.errors import StoreError
from tailrisk.records import Batch, BatchFailure, BatchResult, JudgedTexts, PromptPlan, RoundPlan
from tailrisk.store import Note, Verdicts, decode, encode
from tailrisk.store.batchcodec import draws_crc
from tailrisk.store.log import encode_line

finite = st.floats(allow_nan=False, allow_infinity=False)
log_prob = st.floats(max_value=1e9, allow_nan=False)  # -inf allowed
score = st.floats()  # everything
ids = st.from_regex(r"[A-Za-z0-9._-]{1,12}", fullmatch=True)
any_text = st.text(st.characters(exclude_categories=()), max_size=20)  # surrogates and NUL too


@st.composite
def batches(draw) -> Batch:
    return Batch(
        prompt_id=draw(ids),
        component=draw(st.integers(0, 4)),
        index=draw(st.integers(0, 10**6)),
        round=draw(st.integers(0, 9)),
        size=draw(st.integers(1, 4)),
        seed=draw(st.integers(0, 2**63 - 1)),
    )


@st.composite
def results(draw) -> BatchResult:
    batch = draw(batches())
    n, k = batch.size, draw(st.integers(1, 4))
    token = npst.arrays(np.int32, st.integers(0, 5), elements=st.integers(0, 2**31 - 1))
    return BatchResult(
        batch=batch,
        tokens=[draw(token) for _ in range(n)],
        texts=[draw(any_text) for _ in range(n)],
        finished=draw(npst.arrays(np.bool_, n)),
        log_q=draw(npst.arrays(np.float64, (n, k), elements=log_prob)),
        log_q_sample=draw(npst.arrays(np.float64, n, elements=finite)),
        verdicts=draw(npst.arrays(np.int8, n, elements=st.integers(0, 2))),
        scores=draw(npst.arrays(np.float64, n, elements=score)),
        judge_errors=[draw(any_text) for _ in range(n)],
        seconds=draw(st.floats(0, 1e6)),
        worker=draw(any_text),
    )


def test_columns_that_were_not_scored_come_back_as_nan_and_nothing_else_does():
    batch = Batch(prompt_id="p0", component=3, index=2, round=1, size=3, seed=5, components=(0, 3))
    full = kit.result(replace(batch, component=1))
    log_q = np.full((3, 5), np.nan)
    log_q[:, [0, 3]] = full.log_q
    log_q[1, 3] = -np.inf
    record = replace(full, batch=batch, log_q=log_q)
    back = through_text(record)
    assert isinstance(back, BatchResult) and back.batch == batch
    assert np.array_equal(back.log_q, log_q, equal_nan=True) and draws_crc(back) == draws_crc(record)
    for place, value in (((0, 1), -3.0), ((0, 0), np.nan), ((2, 4), -np.inf), ((0, 3), np.inf)):
        wrong = log_q.copy()
        wrong[place] = value
        with pytest.raises(StoreError, match="not logged"):
            encode(replace(record, log_q=wrong))
    with pytest.raises(StoreError, match="NaN"):
        encode(replace(record, batch=replace(batch, components=None)))


def test_plans_of_some_components_of_all_and_of_faded_ones_are_told_apart():
    some = PromptPlan(prompt_id="p0", counts=(3, 0, 3), mass=0.5, final=False, components=(0, 2))
    every = PromptPlan(prompt_id="p1", counts=(3, 3, 0), mass=0.0, final=False)
    batch = Batch(prompt_id="p0", component=2, index=0, round=1, size=3, seed=5, components=(0, 2))
    faded = replace(every, counts=(3, 2, 1), faded=(0.0, 0.0, 1.0 / 3))
    both = replace(faded, prompt_id="p2", counts=(3, 0, 3), components=(0, 2))
    prompts = (some, every, faded, both)
    plan = RoundPlan(round=1, prompts=prompts, batches=(batch, replace(batch, components=None)))
    assert through_text(plan) == plan
    failure = BatchFailure(batch=batch, reason="no")
    assert through_text(failure) == failure


def through_text(record):
    """Encode, write as a line of the log, read as the log does."""
    line = encode_line(*encode(record))
    body = json.loads(line[9:])
    return decode(body["kind"], body["payload"])


@settings(max_examples=150, deadline=None)
@given(results())
def test_a_result_comes_back_bit_for_bit(result):
    back = through_text(result)
    assert isinstance(back, BatchResult)
    # NaN has many bit patterns; one of them comes back.
    canonical = replace(result, scores=np.where(np.isnan(result.scores), np.nan, result.scores))
    assert kit.same_result(back, canonical)


@settings(max_examples=50, deadline=None)
@given(st.lists(batches(), max_size=5), st.floats(0, 1), st.booleans(), ids, any_text)
def test_plans_failures_notes_come_back(found, mass, final, prompt_id, text):
    plan = RoundPlan(
        round=3,
        prompts=(PromptPlan(prompt_id=prompt_id, counts=(2, 0, 5), mass=mass, final=final),),
        batches=tuple(found),
    )
    assert through_text(plan) == plan
    assert through_text(Note(text=text, data={"x": [1, None]})) == Note(text=text, data={"x": [1, None]})
    for batch in found:
        failure = BatchFailure(batch=batch, reason=text)
        assert through_text(failure) == failure


@settings(max_examples=50, deadline=None)
@given(results())
def test_the_text_is_that_of_an_encoder_that_writes_it_whole(result):
    kind, text = encode(result)
    assert kind == "batch" and isinstance(text, str)
    payload = json.loads(text)
    assert json.dumps(payload, separators=(",", ":")) == text
    assert payload["crc"] == draws_crc(result) and list(payload)[-1] == "crc"


def test_verdicts_come_back():
    judged = JudgedTexts(np.array([0, 1, 2], np.int8), np.array([0.1, np.inf, np.nan]), ["", "", "late"])
    back = through_text(Verdicts(key="p/0/1", judged=judged))
    assert isinstance(back, Verdicts)
    assert back.key == "p/0/1" and back.judged.errors == judged.errors
    np.testing.assert_array_equal(back.judged.verdicts, judged.verdicts)
    np.testing.assert_array_equal(back.judged.scores, judged.scores)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("log_q", np.full((3, 2), np.nan), "NaN"),
        ("log_q", np.full((3, 2), np.inf), "inf"),
        ("log_q_sample", np.array([0.0, -np.inf, 0.0]), "log_q_sample"),
        ("log_q_sample", np.zeros(2), "planned with 3"),
        ("texts", ["a"], "planned with 3"),
        ("verdicts", np.array([0, 1, 3], np.int8), "verdict"),
        ("seconds", float("nan"), "not plain JSON"),
        ("worker", b"w", "not plain JSON"),
    ],
)
def test_what_must_not_be_logged_is_refused(field, value, said):
    good = kit.result(kit.plan(0).batches[0])
    with pytest.raises(StoreError, match=said):
        encode(replace(good, **{field: value}))


def test_records_of_another_version_are_refused():
    kind, text = encode(kit.result(kit.plan(0).batches[0]))
    assert isinstance(text, str)
    payload = json.loads(text)
    del payload["log_q"]
    with pytest.raises(StoreError, match="another version"):
        decode(kind, payload)
    with pytest.raises(StoreError, match="unknown kind"):
        decode("hologram", {})


def test_checksum_of_draws_ignores_the_judge_and_sees_everything_else():
    good = kit.result(kit.plan(0).batches[0])
    same = replace(good, verdicts=1 - good.verdicts, scores=good.scores + 1, seconds=9.0, worker="other")
    assert draws_crc(same) == draws_crc(good)
    nudged = good.log_q.copy()
    nudged[1, 0] = np.nextafter(nudged[1, 0], 0)
    other_tokens = [good.tokens[0] + np.int32(1), *good.tokens[1:]]
    for change in (
        {"log_q": nudged},
        {"tokens": other_tokens},
        {"finished": ~good.finished},
        {"log_q_sample": good.log_q_sample + 1e-9},
    ):
        assert draws_crc(replace(good, **change)) != draws_crc(good)
