"""Judge workers alone on a real local Ray: the verdicts of one process, whoever dies of what."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import numpy as np
import pytest
from fakeworkers import FakeJudge, make_config, prompts_of

from tailrisk.audit.local import LocalJudges
from tailrisk.audit.protocols import AnswersToJudge
from tailrisk.cluster import RayJudges
from tailrisk.records import JudgedTexts, Prompt, Verdict

pytestmark = pytest.mark.cluster


def asked(prompts: list[Prompt], each: int) -> Iterator[AnswersToJudge]:
    for p in prompts:
        for i in range(each):
            yield AnswersToJudge(f"{p.id}/0/{i}", p.id, [" ".join("w" * (1 + (i + j) % 3)) for j in range(4)])


def collected(workers: RayJudges | LocalJudges, prompts: list[Prompt], each: int) -> dict[str, JudgedTexts]:
    found: dict[str, JudgedTexts] = {}
    for one, judged in workers.judge_all(asked(prompts, each)):
        assert one.key not in found
        found[one.key] = judged
    return found


def assert_same(found: dict[str, JudgedTexts], wanted: dict[str, JudgedTexts]) -> None:
    assert set(found) == set(wanted)
    for key, judged in wanted.items():
        np.testing.assert_array_equal(found[key].verdicts, judged.verdicts)
        np.testing.assert_array_equal(found[key].scores, judged.scores)
        assert found[key].errors == judged.errors


def test_the_verdicts_are_those_of_one_process(ray_local):
    prompts = prompts_of(*(f"p{i}" for i in range(12)))
    config = make_config(judges={"min": 1, "max": 2, "num_cpus": 1})
    with RayJudges(config, prompts, judge_factory=FakeJudge) as workers:
        assert_same(
            collected(workers, prompts, 20), collected(LocalJudges(FakeJudge(), prompts), prompts, 20)
        )
        assert workers._line.together > 1, "a judge that answers at once gets several batches a call"


def test_answers_that_kill_their_judge_are_undetermined_and_a_killed_worker_is_replaced(ray_local):
    prompts = prompts_of("p0", "judgekill", "p1", "p2")
    with RayJudges(make_config(retries=1), prompts, judge_factory=FakeJudge) as workers:
        found: dict[str, JudgedTexts] = {}
        killed = False
        for one, judged in workers.judge_all(asked(prompts, 2)):
            found[one.key] = judged
            if not killed and (replica := next(iter(workers._pool._replicas), None)) and replica.place:
                os.kill(int(replica.place.rpartition(":")[2]), signal.SIGKILL)
                killed = True
    assert killed
    lost = {key: j for key, j in found.items() if key.startswith("judgekill/")}
    assert len(lost) == 2
    for judged in lost.values():
        assert (judged.verdicts == Verdict.UNDETERMINED).all()
        assert all("killed its worker" in e for e in judged.errors)
    innocent = [p for p in prompts if p.id != "judgekill"]
    rest = {key: j for key, j in found.items() if key not in lost}
    assert_same(rest, collected(LocalJudges(FakeJudge(), prompts), innocent, 2))
