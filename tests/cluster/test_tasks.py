"""Who is to blame, and what fits where: rules without Ray."""

from __future__ import annotations

import pytest

from tailrisk.cluster.resources import Node, demand, missing
from tailrisk.cluster.tasks import MAX_REASON, Blame, Task, describe, lost, spoils_process
from tailrisk.config import PoolConfig
from tailrisk.errors import ModelError


def task() -> Task:
    return Task("p/0/0", "run", ())


def test_deaths_beside_others_do_not_count():
    blame, suspect = Blame(retries=2), task()
    assert blame.death(suspect, "ended", certain=False) is None
    assert suspect.alone, "from now on it is tried alone"
    assert blame.death(suspect, "ended", certain=True) is None
    assert blame.death(suspect, "ended", certain=True) == "killed its worker 3 times (ended)"
    assert blame.given_up == 1
    blame.answered()
    assert blame.given_up == 0


def test_a_subject_is_given_up_with_the_first_of_its_tasks_where_so_asked():
    for whole in (True, False):
        blame = Blame(retries=1, by_subject=whole)
        first, second = (Task(f"p/0/{i}", "run", (), "p") for i in range(2))
        assert blame.death(first, "ended", certain=True) == "killed its worker once (ended)"
        said = {"p": "not tried: batch p/0/0 killed its worker once (ended)"} if whole else {}
        assert blame.guilty == said
        assert blame.death(second, "ended", certain=True) is not None
        assert blame.given_up == 1, "however many batches of one prompt: it may be the prompt's fault"
        assert blame.death(Task("q/0/0", "run", (), "q"), "ended", certain=True) is not None
        assert blame.given_up == 2


def test_no_retries_still_proves_guilt_alone():
    blame, suspect = Blame(retries=0), task()
    assert blame.death(suspect, "ended", certain=False) is None
    assert blame.death(suspect, "ended", certain=True) is not None
    assert Blame(retries=0).death(task(), "hung", certain=True) == "killed its worker once (hung)"


def test_a_call_for_several_batches_is_given_back_at_once_and_nobody_is_blamed():
    blame = Blame(retries=3, by_subject=True)
    several = Task("p/0/0", "run_all", (), batches=4)
    assert blame.death(several, "ended", certain=True) == "ended"
    assert blame.raised(Task("p/0/0", "run_all", (), batches=2), ValueError("x")) == "ValueError: x"
    assert blame.given_up == 0 and blame.guilty == {}


def test_raising_tasks():
    blame = Blame(retries=3)
    assert blame.raised(task(), ModelError("non-finite")) == "non-finite"
    again = task()
    assert blame.raised(again, ValueError("x")) is None
    assert blame.raised(again, ValueError("x\n  y")) == "ValueError: x y"
    assert describe(KeyError()) == "KeyError"
    assert len(describe(ValueError("z" * 9999))) == MAX_REASON


def test_errors_that_spoil_the_process():
    assert spoils_process(RuntimeError("CUDA error: device-side assert triggered"))
    assert not spoils_process(ValueError("CUDA is not available"))


def test_workers_that_go_with_their_node_are_one_loss():
    said = (
        "The actor died unexpectedly before finishing this task.\n\tclass_name: A\n\tip: 127.0.0.1\nThe actor died "
        "because its node has died. Node Id: df414d2a4c\n\tthe actor's node was terminated unexpectedly: health check "
        "failed due to missing too many heartbeats"
    )
    assert [lost(RuntimeError(said), f"models-{i}") for i in (1, 2)] == ["node df414d2a4c"] * 2
    assert lost(RuntimeError("The actor died: worker process has died."), "models-1") == "models-1"


def test_demand_leaves_out_what_is_not_asked():
    assert demand(PoolConfig(num_cpus=0)) == {}
    assert demand(PoolConfig(num_cpus=2, num_gpus=0.5)) == {"CPU": 2, "GPU": 0.5}


SPOT = {"ray.io/market-type": "spot"}
NODES = [
    Node({"CPU": 8.0, "GPU": 1.0, "memory": 2.0**30, "accelerator_type:H100": 1.0}, SPOT),
    Node({"CPU": 64.0}),
]


@pytest.mark.parametrize(
    ("asked", "workers", "lack"),
    [
        ({}, 100, ""),
        ({"num_cpus": 8}, 9, ""),
        ({"num_cpus": 8}, 10, "9 fit into a cluster of 72 CPU"),
        ({"num_cpus": 65}, 1, "needs 65 CPU, and the largest node has 64"),
        ({"num_gpus": 2}, 1, "needs 2 GPU, and the largest node has 1"),
        ({"num_cpus": 16, "num_gpus": 1}, 1, "no node has all of 16 CPU, 1 GPU"),
        ({"num_gpus": 0.1}, 10, ""),
        ({"num_gpus": 0.25}, 5, "4 fit"),
        ({"memory": "512MiB"}, 2, ""),
        ({"memory": "2GiB"}, 1, "needs 2 GiB memory, and the largest node has 1 GiB"),
        ({"num_gpus": 1, "accelerator": "H100"}, 1, ""),
        ({"num_gpus": 1, "accelerator": "A100"}, 1, "no node has a GPU of the type A100"),
        ({"num_cpus": 8, "labels": SPOT}, 2, "1 fit"),
        ({"num_cpus": 64, "labels": SPOT}, 1, "largest node with the labels ray.io/market-type: spot has 8"),
        ({"num_cpus": 64, "labels": SPOT, "fallback": [{"ray.io/market-type": "!spot"}]}, 1, ""),
        ({"labels": {"zone": "in(a,b)"}}, 1, "no node has the labels zone: in(a,b)"),
        ({"labels": {"zone": "!in(a,b)"}}, 1, ""),
    ],
)
def test_missing(asked, workers, lack):
    got = missing(PoolConfig(**({"num_cpus": 0} | asked)), NODES, workers)
    assert (lack in got) if lack else got == ""


def test_ranks_of_a_worker_are_on_one_node(monkeypatch):
    monkeypatch.setattr(PoolConfig, "ranks", 2)
    assert missing(PoolConfig(num_cpus=32), NODES, 1) == ""
    assert "needs 66 CPU" in missing(PoolConfig(num_cpus=33), NODES, 1)
    assert "needs 2 GPU" in missing(PoolConfig(num_cpus=0, num_gpus=1), NODES, 1)
