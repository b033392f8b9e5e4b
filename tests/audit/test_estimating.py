"""Estimates that a process beside the driver makes: the same ones, whatever becomes of that process."""

from __future__ import annotations

import logging
import pickle
from pathlib import Path

import pytest
from truth.tablelaws import TableLaws, WordJudge, toy_config, toy_prompts

from tailrisk.audit import estimating
from tailrisk.audit.driver import run_audit
from tailrisk.audit.local import LocalExecutor
from tailrisk.store import RunStore, make_manifest

COMPONENTS = ("target", "good", "missing")
PROMPTS = toy_prompts([0.3, 0.05, 1e-3, 0.2, 0.01, 1e-4])
CONFIG = toy_config(COMPONENTS, budget={"draws": 1800, "pilot": 60, "batch": 64, "rounds": 3})


class Answer:
    def __init__(self, value: object, patience: int) -> None:
        self._value, self._patience = value, patience

    @property
    def done(self) -> bool:
        self._patience -= 1
        return self._patience < 0

    def value(self) -> object:
        if isinstance(self._value, Exception):
            raise self._value
        return self._value


class Other:
    """In the place of another process; answers are there when they were asked for ``patience`` times, and from the
    ``dies``-th call on there are none. What goes in and out is pickled, as it is on its way."""

    def __init__(self, patience: int = 0, dies: int = 10**9) -> None:
        self.calls, self.prompts, self._patience, self._dies = 0, 0, patience, dies

    def start(self, function, argument):
        function, argument = pickle.loads(pickle.dumps((function, argument)))
        self.calls, self.prompts = self.calls + 1, self.prompts + len(argument)
        if self.calls >= self._dies:
            return Answer(RuntimeError("the process ended"), self._patience)
        return Answer(pickle.loads(pickle.dumps(function(argument))), self._patience)


class Helped(LocalExecutor):
    def __init__(self, beside: Other | None) -> None:
        super().__init__(TableLaws(COMPONENTS), WordJudge(), PROMPTS)
        if beside is not None:
            self.beside = beside


def estimates(folder: Path, beside: Other | None) -> tuple:
    executor = Helped(beside)
    with RunStore.open(folder, make_manifest(CONFIG, PROMPTS)) as store:
        outcome = run_audit(CONFIG, PROMPTS, executor.card, executor, store)
    return outcome.estimates, outcome.totals["draws"]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few prompts are many, and two travel together."""
    monkeypatch.setattr(estimating, "MANY", len(PROMPTS))
    monkeypatch.setattr(estimating, "TOGETHER", 2)


@pytest.mark.parametrize("patience", [0, 3, 10**9], ids=["at once", "late", "when waited for"])
def test_the_estimates_are_those_of_the_driver(small: None, tmp_path: Path, patience: int):
    other = Other(patience)
    assert estimates(tmp_path / "other", other) == estimates(tmp_path / "own", None)
    # Each prompt once a round at least, and no portion of more than two.
    assert other.prompts >= len(PROMPTS) and other.calls >= other.prompts / 2


def test_a_process_that_ends_costs_nothing_but_a_warning(small: None, tmp_path: Path, caplog):
    with caplog.at_level(logging.WARNING, logger="tailrisk"):
        other = Other(dies=2)
        assert estimates(tmp_path / "other", other) == estimates(tmp_path / "own", None)
    assert "the process ended" in caplog.text and other.calls >= 2


def test_the_driver_helps_where_the_process_is_behind(small: None, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(estimating, "MOST", 1)
    other = Other(patience=10**9)
    assert estimates(tmp_path / "other", other) == estimates(tmp_path / "own", None)
    assert 1 <= other.calls <= 4  # one a round, the others by the driver


def test_what_is_heavy_stays_with_the_driver(small: None, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(estimating, "DRAWS", 1)
    other = Other()
    assert estimates(tmp_path / "other", other) == estimates(tmp_path / "own", None)
    assert other.calls == 0


def test_few_prompts_are_not_worth_a_process(tmp_path: Path):
    other = Other()
    estimates(tmp_path, other)
    assert other.calls == 0
