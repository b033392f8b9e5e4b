"""Verdicts that are kept: the same results with fewer calls, and nothing kept of what failed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from truth.tablelaws import TableLaws, WordJudge, toy_config, toy_prompts

from tailrisk.audit.driver import run_audit
from tailrisk.audit.local import LocalExecutor
from tailrisk.audit.outcome import AuditOutcome
from tailrisk.audit.protocols import Silent
from tailrisk.audit.verdictcache import VerdictCache, cache_of
from tailrisk.errors import JudgeError
from tailrisk.judgeconfig import JudgeConfig, JudgeSection, judge_identity
from tailrisk.records import JUDGE_GONE, BatchResult, JudgedTexts, Verdict
from tailrisk.store import RunStore, make_manifest, replay

COMPONENTS = ("target", "good", "missing")
PROMPTS = toy_prompts([0.3, 0.05, 1e-3])
BUDGET = {"draws": 3000, "pilot": 60, "batch": 64, "rounds": 3}


class Counting(WordJudge):
    """Every answer that it was asked of; from ``after`` answers on nobody is there."""

    def __init__(self, after: int | None = None) -> None:
        self.asked: list[tuple[str, str]] = []
        self._after = after

    def judge(self, prompt, responses):
        self.asked += [(prompt, text) for text in responses]
        judged = super().judge(prompt, responses)
        if self._after is not None and len(self.asked) > self._after:
            n = len(responses)
            away = [f"{JUDGE_GONE}no reply from host"] * n
            return JudgedTexts(np.full(n, Verdict.UNDETERMINED, np.int8), np.full(n, np.nan), away)
        return judged


def audit(folder: Path, judge: Any, *, cache: bool, laws: Any = None, observers: Any = ()) -> AuditOutcome:
    config = toy_config(COMPONENTS, budget=BUDGET)
    config = config.model_copy(update={"judge": config.judge.model_copy(update={"cache": cache})})
    executor = LocalExecutor(laws or TableLaws(COMPONENTS), judge, PROMPTS, cache=cache_of(config))
    with RunStore.open(folder, make_manifest(config, PROMPTS)) as store:
        return run_audit(config, PROMPTS, executor.card, executor, store, observers=observers)


def judged(*verdicts: int, errors: list[str] | None = None) -> JudgedTexts:
    scores = np.array(verdicts, dtype=np.float64)
    return JudgedTexts(np.array(verdicts, dtype=np.int8), scores, errors or [""] * len(verdicts))


def batches(folder: Path) -> list[BatchResult]:
    return [r for r in replay(folder) if isinstance(r, BatchResult)]


def test_an_answer_is_asked_about_once_and_what_failed_again():
    cache = VerdictCache("judge")
    asked = cache.look_up("p", ["a", "b", "a", "odd", "odd"])
    assert asked.texts == ["a", "b", "odd"]
    whole = cache.settle(asked, judged(1, 0, 2, errors=["", "", "broken"]))
    assert whole.verdicts.tolist() == [1, 0, 1, 2, 2] and whole.errors == ["", "", "", "broken", "broken"]
    assert whole.calls == 3 and len(cache) == 2
    again = cache.look_up("p", ["odd", "b", "a", "\ud800"])
    assert again.texts == ["odd", "\ud800"]
    assert cache.look_up("another p", ["a"]).texts == ["a"]
    known = cache.look_up("p", ["b", "a"])
    assert known.texts == [] and cache.settle(known).calls == 0
    assert cache.settle(known).verdicts.tolist() == [0, 1]
    assert VerdictCache("judge").look_up("p", []).texts == []


def test_memory_is_bounded_and_what_is_in_use_stays():
    cache = VerdictCache("judge", most=100)
    cache.learn("p", ["often"], judged(1))
    for i in range(1000):
        cache.learn("p", [f"answer {i}"], judged(0))
        if i % 20 == 0:
            assert cache.look_up("p", ["often"]).texts == [], i
    assert len(cache) <= 100
    assert cache.look_up("p", ["answer 0"]).texts and not cache.look_up("p", ["answer 999"]).texts


def test_results_are_the_same_with_fewer_calls(tmp_path: Path):
    plain, saving = Counting(), Counting()
    without, with_ = audit(tmp_path / "a", plain, cache=False), audit(tmp_path / "b", saving, cache=True)
    assert with_.estimates == without.estimates and with_.exit_code == without.exit_code
    for one, other in zip(batches(tmp_path / "a"), batches(tmp_path / "b"), strict=True):
        np.testing.assert_array_equal(one.verdicts, other.verdicts)
        np.testing.assert_array_equal(one.scores, other.scores)
        assert one.judge_errors == other.judge_errors and one.judge_calls is None
    assert len(set(saving.asked)) == len(saving.asked) < len(plain.asked) / 3
    draws = without.totals["draws"]
    assert without.totals["judge"] == {"answers": draws, "calls": draws, "saved": 0}
    calls = len(saving.asked)
    assert with_.totals["judge"] == {"answers": draws, "calls": calls, "saved": draws - calls}
    same = {k: v for k, v in with_.totals.items() if k not in ("seconds", "work_seconds", "judge")}
    assert same == {k: without.totals[k] for k in same}


def test_a_run_that_is_resumed_knows_what_was_judged_before(tmp_path: Path):
    class Impatient(Silent):
        seen = 0

        def batch_done(self, outcome):
            self.seen += 1
            if self.seen == 14:
                raise KeyboardInterrupt

    first, second = Counting(), Counting()
    with pytest.raises(KeyboardInterrupt):
        audit(tmp_path / "run", first, cache=True, observers=[Impatient()])
    outcome = audit(tmp_path / "run", second, cache=True)
    assert not set(first.asked) & set(second.asked)
    assert outcome.totals["judge"]["calls"] == len(first.asked) + len(second.asked)
    assert outcome.estimates == audit(tmp_path / "calm", Counting(), cache=False).estimates


@pytest.mark.parametrize("cache", [True, False])
def test_a_judge_that_is_gone_ends_the_audit_and_costs_no_draw(tmp_path: Path, cache):
    folder, laws = tmp_path / "run", TableLaws(COMPONENTS)
    with pytest.raises(JudgeError, match=r"no judge: no reply from host.*same command again"):
        audit(folder, Counting(after=10), cache=cache, laws=laws)
    drawn = laws.calls
    assert len(batches(folder)) == drawn and not (folder / "estimates.json").exists()
    with pytest.raises(JudgeError, match="no judge"):
        audit(folder, Counting(after=0), cache=cache, laws=(still := TableLaws(COMPONENTS)))
    assert still.calls == 0, "nothing is drawn while stored answers wait for a judge"
    again = TableLaws(COMPONENTS)
    outcome = audit(folder, Counting(), cache=cache, laws=again)
    assert again.calls == len(batches(folder)) - drawn
    assert outcome.estimates == audit(tmp_path / "calm", Counting(), cache=False).estimates
    assert outcome.totals["undetermined"] == 0


def test_the_log_of_a_judge_without_a_cache_is_as_it_was(tmp_path: Path):
    audit(tmp_path / "run", Counting(), cache=False)
    for path in (tmp_path / "run" / "log").glob("*.jsonl"):
        for line in path.read_text().splitlines():
            assert "calls" not in json.loads(line[9:])["payload"]


def test_a_judge_made_of_others_is_kept_for_the_dearest_and_shares_its_budget():
    class Both(JudgeSection):
        judges: tuple[JudgeConfig, ...]

    quick = {"kind": "refusal"}
    dear = {"kind": "endpoint", "url": "http://h/v1", "model": "m", "budget": {"calls": 9}}
    both = Both.model_validate({"judges": [quick, dear]})
    assert both.cached and not Both.model_validate({"judges": [quick, quick]}).cached
    first, second = both.shared(2).judges
    assert first == both.judges[0] and second.model_dump()["budget"]["calls"] == 4
    identity = judge_identity(
        {"kind": "all", "judges": [judge.model_dump(mode="json") for judge in both.judges]}
    )
    assert "url" not in identity["judges"][1] and identity["judges"][1]["model"] == "m"


@pytest.mark.parametrize(
    ("judge", "cached"),
    [
        ({"kind": "regex", "pattern": "x"}, False),
        ({"kind": "regex", "pattern": "x", "cache": True}, True),
        ({"kind": "refusal"}, False),
        ({"kind": "python", "function": "f.py:f"}, False),
        ({"kind": "endpoint", "url": "http://h/v1", "model": "m"}, True),
        ({"kind": "endpoint", "url": "http://h/v1", "model": "m", "cache": False}, False),
    ],
)
def test_what_is_kept_by_kind(judge, cached):
    config = toy_config(COMPONENTS)
    data = config.model_dump(mode="json") | {"judge": judge}
    assert (cache_of(type(config).model_validate(data)) is not None) == cached
