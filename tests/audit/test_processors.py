"""Draws of several kinds of processors: kept in the log, counted, and told where they are of several laws."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from truth.tablelaws import TableLaws, WordJudge, toy_config, toy_prompts

from tailrisk.audit.driver import run_audit
from tailrisk.audit.local import LocalExecutor
from tailrisk.audit.processors import PROCESSOR_NOTE, processor_totals
from tailrisk.audit.protocols import Processor, Silent
from tailrisk.audit.recovery import rebuild_folder
from tailrisk.report.processors import drawn_on, mixture, unlike
from tailrisk.store import Note, RunStore, make_manifest, replay

COMPONENTS = ("target", "good", "missing")
PROMPTS = toy_prompts([0.3, 0.05])
CONFIG = toy_config(COMPONENTS, seed=0, budget={"draws": 1500, "pilot": 60, "batch": 64, "rounds": 3})


class OnProcessor(TableLaws):
    def __init__(self, processor: str, *, half: bool = True) -> None:
        super().__init__(COMPONENTS)
        self.processor, self.corrected = processor, half


class Impatient(Silent):
    def __init__(self, batches: int) -> None:
        self.left = batches

    def batch_done(self, outcome) -> None:
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


def audit(folder: Path, laws: TableLaws, *, stop_after: int | None = None):
    executor = LocalExecutor(laws, WordJudge(), PROMPTS)
    observers = [] if stop_after is None else [Impatient(stop_after)]
    with RunStore.open(folder, make_manifest(CONFIG, PROMPTS)) as store:
        return run_audit(CONFIG, PROMPTS, executor.card, executor, store, observers=observers)


def notes(folder: Path) -> list[dict[str, str]]:
    found = (r for r in replay(folder) if isinstance(r, Note) and r.text == PROCESSOR_NOTE)
    return [note.data for note in found]


def resumed_elsewhere(folder: Path, *, half: bool = True):
    with pytest.raises(KeyboardInterrupt):
        audit(folder, OnProcessor("cpu A", half=half), stop_after=5)
    return audit(folder, OnProcessor("cpu B", half=half))


def test_the_log_says_what_drew_each_batch(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        outcome = resumed_elsewhere(tmp_path / "run")
    assert notes(tmp_path / "run") == [
        {"worker": "local", "pool": "models", "kind": kind} for kind in ("cpu A", "cpu B")
    ]
    first, second = outcome.totals["processors"]
    assert (first["kind"], second["kind"]) == ("cpu A", "cpu B")
    assert 0 < first["draws"] < second["draws"]
    assert first["draws"] + second["draws"] == outcome.totals["draws"]
    state = rebuild_folder(CONFIG, PROMPTS, tmp_path / "run")
    assert state is not None and processor_totals(state) == [first, second]
    told = [r.getMessage() for r in caplog.records if "different laws" in r.getMessage()]
    assert len(told) == 1 and "cpu B, earlier draws are from cpu A" in told[0]
    assert "cluster.models.labels" in told[0] and "float32" in told[0]


def test_what_they_ran_on_changes_no_estimate(tmp_path: Path):
    mixed = resumed_elsewhere(tmp_path / "mixed")
    assert mixed.estimates == audit(tmp_path / "calm", OnProcessor("cpu A")).estimates
    assert len(notes(tmp_path / "calm")) == 1, "once a worker, not once a batch"


def test_a_mixture_is_told_in_half_precision_only(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    half = resumed_elsewhere(tmp_path / "half").totals
    assert "cpu A (" in mixture(half) and "different laws" in mixture(half)
    caplog.clear()
    full = resumed_elsewhere(tmp_path / "full", half=False).totals
    assert mixture(full) == "" and not caplog.records
    assert drawn_on(full) == drawn_on(half) != ""
    one = audit(tmp_path / "one", OnProcessor("cpu A")).totals
    assert mixture(one) == "" and drawn_on(one) == f"cpu A ({one['draws']:,} draws)"


def test_draws_from_before_anything_was_noted_are_said_to_be_unknown(tmp_path: Path):
    with pytest.raises(KeyboardInterrupt):
        laws = TableLaws(COMPONENTS)
        laws.corrected = True
        audit(tmp_path / "run", laws, stop_after=5)
    totals = audit(tmp_path / "run", OnProcessor("cpu B")).totals
    assert drawn_on(totals).startswith("not recorded (") and "cpu B (" in drawn_on(totals)
    assert mixture(totals) == "", "one kind is known, of the rest nothing is"


def test_laws_that_run_the_same_everywhere_leave_no_trace(tmp_path: Path):
    totals = audit(tmp_path / "run", TableLaws(COMPONENTS)).totals
    assert totals["processors"] == [] and notes(tmp_path / "run") == []
    assert drawn_on(totals) == mixture(totals) == ""


def counted(*found: tuple[Processor, int], half: bool = True):
    listed = [{**processor._asdict(), "draws": n} for processor, n in found]
    return {"corrected": half, "processors": listed}


def test_pools_of_workers_may_be_of_different_kinds():
    models, checkpoints = Processor("models", "gpu A"), Processor("checkpoints", "gpu B")
    apart = counted((checkpoints, 40), (models, 60))
    assert drawn_on(apart) == "gpu A (60 draws); checkpoints: gpu B (40 draws)"
    assert mixture(apart) == "", "each law was computed on one kind"
    both = counted((checkpoints, 40), (models, 60), (checkpoints._replace(kind="gpu C"), 10))
    assert "checkpoints: gpu B (40 draws), gpu C (10 draws)" in mixture(both)


def test_two_runs_of_unlike_kinds():
    a, b = counted((Processor("models", "A"), 1)), counted((Processor("models", "B"), 1))
    assert "A was drawn on A and B on B" in unlike(a, b)
    assert unlike(a, a) == "" == unlike(a, counted())
    assert unlike({**a, "corrected": False}, {**b, "corrected": False}) == ""
