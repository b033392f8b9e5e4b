"""Checkpoints in workers of their own: the laws, the numbers and the identity of an audit stay what they are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from fakeworkers import FakeJudge, MakeCheckpointLaws, MakeLaws, batches_of, prompts_of
from pydantic import ValidationError
from tinymodel import make_tiny_adapter, make_tiny_model, prompt

from tailrisk.audit.protocols import LawCard
from tailrisk.audit.work import draw_batch, draw_part, score
from tailrisk.cluster import RayExecutor
from tailrisk.cluster.actors import checkpoints_of, laws_of
from tailrisk.cluster.parts import CHECKPOINTS, MODELS, Course, Parts
from tailrisk.config import Config
from tailrisk.errors import ClusterError
from tailrisk.proposals import build_laws
from tailrisk.records import BatchFailure, BatchResult

PROPOSALS = [
    {"name": "first", "kind": "checkpoint", "model": "first"},
    {"name": "told", "kind": "system_prompt", "text": "w3"},
    {"name": "second", "kind": "checkpoint", "model": "second"},
]


def config_of(proposals=PROPOSALS, method: str = "mixture", **cluster) -> Config:
    return Config.model_validate(
        {
            "target": {
                "model": "model",
                "adapter": "adapter",
                "dtype": "float32",
                "sampling": {"max_new_tokens": 5},
            },
            "prompts": {"path": "unused"},
            "proposals": proposals,
            "judge": {"kind": "refusal"},
            "method": method,
            "cluster": {"checkpoints": {"num_cpus": 1}, **cluster},
        }
    )


def test_parts_make_the_same_batch_as_the_whole(tmp_path):
    make_tiny_model(tmp_path / "model")
    make_tiny_adapter(tmp_path / "adapter", tmp_path / "model")
    for seed, name in enumerate(("first", "second"), start=1):
        make_tiny_model(tmp_path / name, seed=seed)
    config = config_of().at(tmp_path)
    parts, whole = Parts(config), build_laws(config)
    assert {name: held.numbers for name, held in parts.held.items()} == {MODELS: (0, 2), CHECKPOINTS: (1, 3)}
    laws = {MODELS: laws_of(config), CHECKPOINTS: checkpoints_of(config)}
    assert parts.card is None
    for name, some in laws.items():
        parts.built(name, LawCard.of(some), "here")
    assert parts.card == LawCard.of(whole), "an audit may go on with its checkpoints elsewhere"
    with pytest.raises(ClusterError, match=r"cluster\.checkpoints: the worker on there .* \(second\)"):
        other = LawCard.of(laws[CHECKPOINTS])
        parts.built(CHECKPOINTS, other._replace(fingerprints=(other.fingerprints[0], "x")), "there")

    sizes = {"component": 0, "components": None, "size": 6}
    for change in (sizes, {**sizes, "component": 1}, {**sizes, "component": 3, "components": (0, 2, 3)}):
        batch = replace(batches_of([prompt()])[0], **change)
        name = parts.drawn_by(batch)
        course = Course(batch, draw_part(laws[name], prompt(), batch, parts.held[name]))
        others = parts.scored_by(batch)
        assert len(others) == 1
        for other in others:
            held = parts.held[other]
            course.scored(held, score(laws[other], prompt(), course.drawn.tokens, batch, held))
        expected = draw_batch(whole, prompt(), batch)
        assert course.drawn.texts == expected.texts
        for field in ("finished", "log_q", "log_q_sample"):
            np.testing.assert_array_equal(getattr(course.drawn, field), getattr(expected, field))
    alone = replace(batches_of([prompt()])[0], component=0, components=(0, 2))
    assert parts.scored_by(alone) == []


@pytest.mark.cluster
def test_batches_go_from_workers_to_workers(ray_local, tmp_path):
    prompts = prompts_of("p0", "p1", "odd-0", "poison-0")
    config = config_of(PROPOSALS[:2], models={"num_cpus": 1, "max": 2}, retries=1, batch_timeout_s=60.0)
    batches = [replace(b, component=i % 3) for i, b in enumerate(batches_of(prompts, each=3))]
    made = RayExecutor(
        config,
        prompts,
        laws_factory=MakeLaws(tmp_path),
        checkpoints_factory=MakeCheckpointLaws(tmp_path),
        judge_factory=FakeJudge,
    )
    with made as executor:
        assert executor.card.names == ("target", "first", "rude")
        outcomes = list(executor.run(batches))
        assert sorted(o.batch.key for o in outcomes) == sorted(b.key for b in batches)
        for outcome in outcomes:
            if outcome.batch.prompt_id in ("p0", "p1"):
                assert isinstance(outcome, BatchResult)
                lengths = np.array([len(t) for t in outcome.tokens])
                expected = np.stack([-lengths, -2.0 * lengths, -1.1 * lengths], 1)
                np.testing.assert_allclose(outcome.log_q, expected, rtol=1e-12)
            else:
                assert isinstance(outcome, BatchFailure)
        bad = replace(batches[0], size=7)
        (outcome,) = executor.run([bad])
        assert isinstance(outcome, BatchFailure) and "under 'first'" in outcome.reason


def test_what_cannot_be_apart_is_refused():
    mixed = [{**PROPOSALS[0], "mix": 0.5}]
    with pytest.raises(ValidationError, match="'first' is mixed with the target token by token"):
        config_of(mixed)
    with pytest.raises(ValidationError, match="for method mixture"):
        config_of([{"name": "a", "kind": "ablation", "direction": "d"}], method="paper")
    assert config_of([PROPOSALS[1]]).apart == ()
