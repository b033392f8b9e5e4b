"""A whole audit with a run folder: files, exit codes, faults of models, judges and observers, resuming."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from truth.tablelaws import TableLaws, WordJudge, toy_config, toy_prompts

from tailrisk.audit.driver import run_audit
from tailrisk.audit.estimates import estimate_all
from tailrisk.audit.local import LocalExecutor
from tailrisk.audit.protocols import Silent
from tailrisk.audit.recovery import rebuild_folder
from tailrisk.errors import ConfigError, JudgeError, ModelError, StoreError
from tailrisk.records import BatchResult, RoundPlan, Status
from tailrisk.store import RunStore, Verdicts, make_manifest, replay

COMPONENTS = ("target", "good", "missing")
PROMPTS = toy_prompts([0.3, 0.05, 1e-3])
BUDGET = {"draws": 3000, "pilot": 60, "batch": 64, "rounds": 3}


class Watching(Silent):
    def __init__(self) -> None:
        self.events: list[str] = []
        self.draws: list[int] = []

    def round_started(self, plan):
        self.events.append(f"start {plan.round}")

    def batch_done(self, outcome):
        self.events.append("batch")

    def round_finished(self, state, estimates):
        self.events.append(f"end {state.round}")
        self.draws.append(sum(e.draws for e in estimates))

    def finished(self, outcome):
        self.events.append("finished")


class FailingOn(TableLaws):
    def __init__(self, *prompt_ids: str) -> None:
        super().__init__(COMPONENTS)
        self.failing = prompt_ids

    def sample(self, prompt, component, n, seed):
        if prompt.id in self.failing and component == 1:
            raise ModelError(f"non-finite logits at token 2 of {prompt.id}")
        return super().sample(prompt, component, n, seed)


class FlakyJudge(WordJudge):
    """Fails on a part of the answers, told by their length, until it is repaired."""

    def __init__(self, failing) -> None:
        self.failing = failing

    def judge(self, prompt, responses):
        judged = super().judge(prompt, responses)
        bad = np.array([self.failing(r) for r in responses])
        return judged._replace(
            verdicts=np.where(bad, 2, judged.verdicts).astype(np.int8),
            scores=np.where(bad, np.nan, judged.scores),
            errors=["judge is away" if b else "" for b in bad],
        )


def audit(folder: Path, *, laws=None, judge=None, observers=(), seed=0, budget=None, stop=None):
    laws = laws or TableLaws(COMPONENTS)
    config = toy_config(COMPONENTS, seed=seed, budget=budget or BUDGET, stop=stop or {})
    executor = LocalExecutor(laws, judge or WordJudge(), PROMPTS)
    with RunStore.open(folder, make_manifest(config, PROMPTS)) as store:
        return run_audit(config, PROMPTS, executor.card, executor, store, observers=observers)


def test_files_and_outcome(tmp_path: Path):
    watching = Watching()
    outcome = audit(tmp_path / "run", observers=[watching])
    assert outcome.exit_code == (0 if all(e.status == Status.OK for e in outcome.estimates) else 3)
    written = json.loads((tmp_path / "run" / "estimates.json").read_text())
    assert written["estimates"] == [e.to_json() for e in outcome.estimates]
    spent = written["audit"]
    assert spent == outcome.totals
    assert spent["draws"] == sum(e.draws for e in outcome.estimates) <= BUDGET["draws"]
    assert sum(spent["statuses"].values()) == spent["prompts"] == 3
    assert abs(spent["mean_weight"]["value"] - 1) < 4 * spent["mean_weight"]["se"] + 0.02
    assert spent["self_agreement"] == {"mean": 0.0, "sd": 0.0}
    assert spent["draws_left"] == BUDGET["draws"] - spent["draws"]

    table = pq.read_table(tmp_path / "run" / "draws.parquet")
    assert len(table) == spent["draws"]
    assert sum(len(t) for t in table["token_ids"].to_pylist()) == spent["tokens"]
    rows = [json.loads(line) for line in (tmp_path / "run" / "hits.jsonl").read_text().splitlines()]
    assert len(rows) == spent["hits"]
    assert [r["weight"] for r in rows] == sorted((r["weight"] for r in rows), reverse=True)
    for estimate in outcome.estimates:
        shares = [r["share"] for r in rows if r["prompt_id"] == estimate.prompt_id]
        assert math.fsum(shares) == pytest.approx(1.0)

    rounds = spent["rounds"]
    assert watching.events[0] == "start 0" and watching.events[-1] == "finished"
    assert [e for e in watching.events if e != "batch"] == [
        *(f"{what} {r}" for r in range(rounds) for what in ("start", "end")),
        "finished",
    ]
    assert watching.draws == sorted(watching.draws) and watching.draws[-1] == spent["draws"]


def test_weights_of_hits_follow_the_definition(tmp_path: Path):
    """Written out for one draw: p over the mixture of its own round."""
    audit(tmp_path / "run")
    plans = {}
    for record in replay(tmp_path / "run"):
        if isinstance(record, RoundPlan):
            plans.update({(p.prompt_id, record.round): p.counts for p in record.prompts})
    row = json.loads((tmp_path / "run" / "hits.jsonl").read_text().splitlines()[0])
    counts = np.array(plans[row["prompt_id"], row["round"]])
    q = np.array([0.0 if v is None else math.exp(v) for v in row["log_q"]])
    assert row["weight"] == pytest.approx(q[0] / (counts / counts.sum() @ q), rel=1e-12)


def test_exit_codes(tmp_path: Path):
    wide = audit(
        tmp_path / "wide", stop={"log_width": 3.0}, budget={"draws": 6000, "pilot": 100, "batch": 128}
    )
    assert [e.status for e in wide.estimates] == [Status.OK] * 3 and wide.exit_code == 0
    narrow = audit(tmp_path / "narrow", stop={"log_width": 0.01})
    assert narrow.exit_code == 3 and narrow.totals["draws_left"] == 0


def test_reading_a_folder_gives_the_same_estimates(tmp_path: Path):
    outcome = audit(tmp_path / "run")
    state = rebuild_folder(toy_config(COMPONENTS, budget=BUDGET), PROMPTS, tmp_path / "run")
    assert state is not None
    assert estimate_all(state) == list(outcome.estimates)
    assert rebuild_folder(toy_config(COMPONENTS), PROMPTS, tmp_path / "none") is None


def test_one_failed_prompt_leaves_the_others(tmp_path: Path):
    outcome = audit(tmp_path / "run", laws=FailingOn("p01"))
    assert [e.status == Status.FAILED for e in outcome.estimates] == [False, True, False]
    assert "non-finite logits at token 2 of p01" in outcome.estimates[1].reasons[0]
    assert outcome.exit_code == 3
    calm = audit(tmp_path / "calm")
    assert outcome.estimates[0].draws >= calm.estimates[0].draws > 60


def test_all_prompts_failed_is_an_error(tmp_path: Path):
    with pytest.raises(ModelError, match=r"all 3 prompts failed.*p00"):
        audit(tmp_path / "run", laws=FailingOn("p00", "p01", "p02"))
    written = json.loads((tmp_path / "run" / "estimates.json").read_text())
    assert {e["status"] for e in written["estimates"]} == {"failed"}


def test_a_judge_that_never_answers_stops_at_once_and_is_made_up_for(tmp_path: Path):
    folder, laws = tmp_path / "run", TableLaws(COMPONENTS)
    with pytest.raises(JudgeError, match=r"judge is away.*same command again"):
        audit(folder, laws=laws, judge=FlakyJudge(lambda r: True))
    drawn = [r.batch.key for r in replay(folder) if isinstance(r, BatchResult)]
    assert len(drawn) == 3 and not (folder / "estimates.json").exists()

    again = TableLaws(COMPONENTS)
    outcome = audit(folder, laws=again)
    rejudged = [r.key for r in replay(folder) if isinstance(r, Verdicts)]
    assert rejudged == drawn
    keys = [r.batch.key for r in replay(folder) if isinstance(r, BatchResult)]
    assert len(set(keys)) == len(keys) and again.calls == len(keys) - 3, "what was drawn is not drawn again"
    assert outcome.estimates == audit(tmp_path / "calm").estimates
    assert outcome.totals["judge_errors"] == outcome.totals["undetermined"] == 0


def test_most_answers_unjudged_stops_at_the_round_end(tmp_path: Path):
    folder = tmp_path / "run"
    with pytest.raises(JudgeError, match=r"failed on \d+ of 180 answers"):
        audit(folder, judge=FlakyJudge(lambda r: len(r) > 0 and r != "bomb"))
    with pytest.raises(JudgeError, match="judge is away"):
        audit(folder, judge=FlakyJudge(lambda r: True))
    assert audit(folder).estimates == audit(tmp_path / "calm").estimates


def test_few_unjudged_answers_widen_the_intervals_only(tmp_path: Path):
    outcome = audit(tmp_path / "run", judge=FlakyJudge(lambda r: r.endswith("then")))
    assert outcome.totals["judge_errors"] == outcome.totals["undetermined"] > 0
    assert sum(e.undetermined for e in outcome.estimates) == outcome.totals["undetermined"]


def test_draws_of_other_laws_are_refused(tmp_path: Path):
    audit(tmp_path / "run")
    other = TableLaws(COMPONENTS)
    other.fingerprints = (other.fingerprints[0], "changed", other.fingerprints[2])
    with pytest.raises(StoreError, match=r"other laws.*good"):
        audit(tmp_path / "run", laws=other)


def test_an_observer_cannot_end_the_audit(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    class Broken(Watching):
        def batch_done(self, outcome):
            self.events.append("batch")
            raise RuntimeError("no terminal")

    broken, fine = Broken(), Watching()
    with caplog.at_level(logging.ERROR):
        audit(tmp_path / "run", observers=[broken, fine])
    assert broken.events == ["start 0", "batch"]
    assert fine.events[-1] == "finished"
    assert [r.message for r in caplog.records if "Broken failed in batch_done" in r.message]


def test_an_interrupt_passes_and_the_run_resumes(tmp_path: Path):
    class Impatient(Watching):
        def batch_done(self, outcome):
            super().batch_done(outcome)
            if len(self.events) == 14:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        audit(tmp_path / "run", observers=[Impatient()])
    watching = Watching()
    outcome = audit(tmp_path / "run", observers=[watching])
    assert outcome.estimates == audit(tmp_path / "calm").estimates
    assert watching.events[-1] == "finished"


def test_a_finished_run_tells_observers_its_last_round(tmp_path: Path):
    outcome = audit(tmp_path / "run")
    watching = Watching()
    again = audit(tmp_path / "run", observers=[watching])
    assert watching.events == [f"end {outcome.totals['rounds'] - 1}", "finished"]
    assert again.estimates == outcome.estimates


def test_a_budget_below_the_pilot_is_refused_before_anything_is_drawn(tmp_path: Path):
    laws = TableLaws(COMPONENTS)
    with pytest.raises(ConfigError, match="180 draws"):
        audit(tmp_path / "run", laws=laws, budget={"draws": 100, "pilot": 60})
    assert laws.calls == 0


def test_batches_that_never_come_back(tmp_path: Path):
    class Losing(LocalExecutor):
        def run(self, batches):
            yield from list(super().run(batches))[:-1]

    config = toy_config(COMPONENTS, budget=BUDGET)
    executor = Losing(TableLaws(COMPONENTS), WordJudge(), PROMPTS)
    with (
        RunStore.open(tmp_path / "run", make_manifest(config, PROMPTS)) as store,
        pytest.raises(ModelError, match="1 batches came back neither"),
    ):
        run_audit(config, PROMPTS, executor.card, executor, store)
    assert audit(tmp_path / "run").estimates == audit(tmp_path / "calm").estimates
