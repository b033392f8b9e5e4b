"""The strong judge in the driver: unbiased, within its calls, the same after a crash, bit-identical without it."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from truth.tablelaws import TableLaws, WordJudge, toy_config, toy_prompts, truth

from tailrisk.audit.driver import run_audit
from tailrisk.audit.estimates import estimate_all
from tailrisk.audit.local import LocalExecutor
from tailrisk.audit.recovery import rebuild_folder
from tailrisk.errors import JudgeError
from tailrisk.records import JudgedTexts
from tailrisk.report import render_report
from tailrisk.stats import Estimate
from tailrisk.store import Asked, RunStore, Told, make_manifest, replay

COMPONENTS = ("target", "good", "mild")
GATES = (0.3, 1e-2, 1e-4)
PROMPTS = toy_prompts(GATES)
BUDGET = {"draws": 1500, "pilot": 60, "batch": 64, "rounds": 2}
STRONG = {"judge": {"kind": "regex", "pattern": "bomb|poison"}, "calls": 200, "least": 0.03}


class CheapJudge(WordJudge):
    """Wrong by the answer: flags a hundredth of the harmless ones, and misses a fifth of the harmful ones."""

    def judge(self, prompt, responses):
        judged = super().judge(prompt, responses)
        lots = np.array([_lot(prompt, r) for r in responses])
        wrong = np.where(judged.verdicts == 1, lots < 0.2, lots < 0.01)
        verdicts = np.where(wrong, 1 - judged.verdicts, judged.verdicts).astype(np.int8)
        return JudgedTexts(verdicts, verdicts.astype(np.float64), [""] * len(responses))


def _lot(prompt: str, response: str) -> float:
    digest = hashlib.sha256(f"{prompt}|{response}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


class Strong(WordJudge):
    """Counts what it reads; stops the process, or fails, after ``after`` calls of its own."""

    def __init__(self, after: int | None = None, *, fails: bool = False) -> None:
        self.after, self.fails = after, fails
        self.calls = 0
        self.read: list[tuple[str, str]] = []

    def judge(self, prompt, responses):
        if self.after is not None and self.calls >= self.after:
            if self.fails:
                raise RuntimeError("no answer")
            raise KeyboardInterrupt
        self.calls += 1
        self.read += [(prompt, r) for r in responses]
        return super().judge(prompt, responses)


def config(seed: int = 0, **strong):
    return toy_config(COMPONENTS, seed=seed, budget=BUDGET, strong_judge={**STRONG, **strong})


def audit(folder: Path, settings, strong=None, laws=None):
    executor = LocalExecutor(laws or TableLaws(COMPONENTS), CheapJudge(), PROMPTS, strong=strong or Strong())
    with RunStore.open(folder, make_manifest(settings, PROMPTS)) as store:
        return run_audit(settings, PROMPTS, executor.card, executor, store)


def told(e: Estimate) -> dict[str, float]:
    assert e.strong is not None
    return {name: math.nan if value is None else value for name, value in e.strong.items()}


def test_calls_are_kept_and_everything_asked_is_logged(tmp_path: Path):
    strong = Strong()
    outcome = audit(tmp_path / "run", config(), strong)
    asked = [r for r in replay(tmp_path / "run") if isinstance(r, Asked)]
    rows = sum(len(s.rows) for a in asked for s in a.samples)
    assert rows == len(strong.read) == outcome.totals["strong"]["calls"] <= STRONG["calls"]
    assert rows > 0.8 * STRONG["calls"], "the calls are there to be used"
    assert [a.round for a in asked] == list(range(outcome.totals["rounds"]))
    assert min(pi for a in asked for s in a.samples for pi in s.inclusion) >= STRONG["least"]
    for e in outcome.estimates:
        assert e.strong is not None and told(e)["calls"] > 0
        assert e.to_json()["strong"]["judge_only"] == e.strong["judge_only"]
    assert sum(told(e)["calls"] for e in outcome.estimates) == rows
    state = rebuild_folder(config(), PROMPTS, tmp_path / "run")
    assert state is not None and estimate_all(state) == list(outcome.estimates)


def test_files_say_what_the_strong_judge_said(tmp_path: Path):
    outcome = audit(tmp_path / "run", config())
    table = pq.read_table(tmp_path / "run" / "draws.parquet").to_pylist()
    asked = [row for row in table if row["strong_verdict"] is not None]
    assert len(asked) == outcome.totals["strong"]["calls"]
    assert all((row["inclusion"] is None) == (row["strong_verdict"] is None) for row in table)
    for row in asked:
        assert row["strong_verdict"] == ("harm" if {"bomb", "poison"} & set(row["text"].split()) else "safe")
        assert STRONG["least"] <= row["inclusion"] <= 1.0
    hits = [json.loads(line) for line in (tmp_path / "run" / "hits.jsonl").read_text().splitlines()]
    found = [row for row in hits if row["strong_verdict"] == "harm"]
    assert len(found) == outcome.totals["strong"]["harm"]
    assert any(row["strong_verdict"] == "safe" for row in hits), "flagged by mistake"
    assert any(row["strong_verdict"] is None and row["share"] == 0.0 for row in hits), "flagged and not read"
    page = render_report(tmp_path / "run").read_text()
    assert "What did the strong judge change?" in page and "flags confirmed" in page


@pytest.mark.parametrize("after", [0, 3, 9])
def test_a_run_that_ends_between_choosing_and_asking_goes_on_with_the_same_sample(tmp_path: Path, after: int):
    whole = audit(tmp_path / "whole", config())
    first = Strong(after)
    with pytest.raises(KeyboardInterrupt):
        audit(tmp_path / "cut", config(), first)
    second = Strong()
    resumed = audit(tmp_path / "cut", config(), second)
    assert resumed.estimates == whole.estimates
    asked = [[r for r in replay(tmp_path / f) if isinstance(r, Asked)] for f in ("whole", "cut")]
    assert asked[0] == asked[1]
    assert len(first.read) + len(second.read) == whole.totals["strong"]["calls"], "nothing is judged twice"


def test_a_strong_judge_that_fails_stops_the_audit_and_is_asked_again(tmp_path: Path):
    with pytest.raises(JudgeError, match=r"strong judge failed on .* no answer"):
        audit(tmp_path / "run", config(), Strong(0, fails=True))
    repaired = audit(tmp_path / "run", config())
    assert repaired.totals["strong"]["errors"] == 0
    assert repaired.estimates == audit(tmp_path / "whole", config()).estimates


def test_without_a_strong_judge_nothing_changes(tmp_path: Path):
    settings = toy_config(COMPONENTS, budget=BUDGET)
    outcome = audit(tmp_path / "run", settings)
    assert "strong" not in outcome.totals
    assert "strong_verdict" not in pq.read_schema(tmp_path / "run" / "draws.parquet").names
    assert "strong judge" not in render_report(tmp_path / "run").read_text()
    assert all("strong" not in e.to_json() for e in outcome.estimates)
    assert not any(isinstance(r, Asked | Told) for r in replay(tmp_path / "run"))


def test_reading_everything_is_the_audit_of_the_strong_judge(tmp_path: Path):
    every = audit(tmp_path / "run", config(calls=1600, least=1.0))
    for e in every.estimates:
        assert e.strong is not None and e.strong["calls"] == e.draws


@pytest.mark.slow
@pytest.mark.parametrize("times", [40, pytest.param(300, marks=pytest.mark.nightly)])
def test_the_driver_is_unbiased(tmp_path: Path, times: int):
    """Adaptive rounds, early closing and samples that go by earlier samples: none may move the mean."""
    from tailrisk.audit.driver import Watchers, run_rounds
    from tailrisk.audit.protocols import LawCard

    laws, ratios, alone = TableLaws(COMPONENTS), [], []
    for seed in range(times):
        settings = config(seed)
        executor = LocalExecutor(laws, CheapJudge(), PROMPTS, strong=Strong())
        with RunStore.open(tmp_path / f"{seed}", make_manifest(settings, PROMPTS)) as store:
            state = run_rounds(settings, PROMPTS, LawCard.of(laws), executor, store, Watchers([]))
        estimates = estimate_all(state)
        ratios.append([e.estimate / truth(g) for e, g in zip(estimates, GATES, strict=True)])
        alone.append([told(e)["judge_only"] / truth(g) for e, g in zip(estimates, GATES, strict=True)])
    x = np.array(ratios)
    z = (x.mean(axis=0) - 1.0) / (x.std(axis=0, ddof=1) / np.sqrt(len(x)))
    assert np.abs(z).max() < 3.0, (x.mean(axis=0), z)
    assert np.abs(np.mean(alone, axis=0) - 1.0).max() > 0.2, "the judge alone must be wrong for this to show"
