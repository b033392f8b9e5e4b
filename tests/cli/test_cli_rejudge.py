"""``tailrisk rejudge``: another judge over the draws of a run; interrupted, repeated, at an address."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from fakerun import CASES, blank_page, workers, write_config
from flakystore import FlakyStore

from tailrisk.cli import run, wiring
from tailrisk.cli.folder import summary_of
from tailrisk.store import final_results, judgements, other_judges, read_log
from tailrisk.store.remote import Objects

GOOD = CASES[:3]
STRICT = "judge: {kind: regex, pattern: 'harm done [0-9]$'}\n"
"""Harm is one of the first ten answers only."""


def stand_ins(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(wiring, "check_models", lambda config, prompts: {"model.target": "0" * 64})
    patch.setattr(wiring, "on_ray", workers(GOOD, 0.0))
    patch.setattr("tailrisk.report.render_report", blank_page)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    stand_ins(monkeypatch)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """The folder of a configuration with its finished run; beside it strict.yaml and same.yaml."""
    home = tmp_path_factory.mktemp("audited")
    with pytest.MonkeyPatch.context() as patch:
        stand_ins(patch)
        config = write_config(home, GOOD, budget={"draws": 3000, "pilot": 60, "batch": 100})
        assert run(["audit", str(config)]) == 0
    (home / "strict.yaml").write_text(STRICT)
    (home / "same.yaml").write_text("judge: {kind: regex, pattern: harm}\n")
    return home


@pytest.fixture
def audited(finished, tmp_path) -> Path:
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    return tmp_path / "runs" / "run"


def results(folder: Path) -> dict:
    return json.loads((folder / "estimates.json").read_text())


def rejudge(folder: Path | str, judge: str, *more: str, home: Path | None = None) -> int:
    place = (home or Path(folder).parents[1]) / judge
    return run(["rejudge", str(folder), "--judge", str(place), "--in-process", *more])


def test_the_same_judge_gives_the_same_numbers_bit_for_bit(audited, capfd):
    before = (audited / "estimates.json").read_bytes(), (audited / "draws.parquet").read_bytes()
    assert rejudge(audited, "same.yaml", "--name", "again") == 0
    again = results(audited / "judges" / "again")
    assert again["estimates"] == results(audited)["estimates"]
    own = results(audited)["audit"]
    assert again["audit"] == {k: own[k] for k in again["audit"]}
    assert (audited / "judges/again/hits.jsonl").read_bytes() == (audited / "hits.jsonl").read_bytes()
    table = again["judge"]["agreement"]
    assert table["draws"][0][1] == table["draws"][1][0] == 0
    assert sum(map(sum, table["draws"])) == own["draws"]
    assert table["probability"][1][1] == pytest.approx(own["mean_risk"]["value"], rel=1e-9)
    assert before == ((audited / "estimates.json").read_bytes(), (audited / "draws.parquet").read_bytes())
    shown = "".join(capfd.readouterr())
    assert "judge again: " in shown and "harm done" not in shown and "prompt of" not in shown


def test_another_judge_has_the_probability_of_its_own_event(audited):
    """The first ten of forty harmful answers, whose part of the probability is known."""
    import numpy as np

    shape = np.geomspace(1.0, 30.0, 40)
    part = shape[:10].sum() / shape.sum()
    assert rejudge(audited, "strict.yaml", "--name", "strict") == 0
    by_id = {e["prompt_id"]: e for e in results(audited / "judges/strict")["estimates"]}
    for case in GOOD:
        e = by_id[case.id]
        assert abs(e["estimate"] - part * case.probability) < 5 * e["standard_error"]
        assert e["certified"][0] < part * case.probability < e["certified"][1]
    texts = [
        json.loads(line)["text"] for line in (audited / "judges/strict/hits.jsonl").read_text().splitlines()
    ]
    assert texts and all(len(t) == len("harm done 0") for t in texts)
    (other,) = other_judges(audited)
    assert (other.name, other.settings["pattern"]) == ("strict", "harm done [0-9]$")


def count(folder: Path, kind: str) -> int:
    return sum(k == kind for k, _ in read_log(folder))


def test_repeated_it_judges_nothing_again(audited, capfd):
    assert rejudge(audited, "strict.yaml") == 0
    first = count(audited, "judgement")
    assert first == count(audited, "batch") and "judge regex" in capfd.readouterr().err
    assert rejudge(audited, "strict.yaml") == 0
    assert count(audited, "judgement") == first and count(audited, "judge") == 1
    assert f"0 batches judged, {first} were judged before" in capfd.readouterr().err


def test_a_name_is_that_of_one_judge(audited, capfd):
    assert rejudge(audited, "strict.yaml", "--name", "x") == 0
    assert rejudge(audited, "same.yaml", "--name", "x") == 1
    assert "another judge of the name 'x'" in capfd.readouterr().err
    for name in ("audit", "../x", ""):
        assert rejudge(audited, "same.yaml", "--name", name or "-") == 2


def test_a_judge_that_fails_ends_the_command_and_nothing_is_lost(audited, capfd):
    folder = audited.parents[1]
    (folder / "j.py").write_text(
        "from pathlib import Path\n"
        "def score(prompt, response):\n"
        "    if not Path(__file__).with_name('up').exists() and prompt != 'prompt of frequent':\n"
        "        raise RuntimeError('judge is down')\n"
        "    return float('harm' in response)\n"
    )
    (folder / "j.yaml").write_text("judge: {kind: python, function: 'j.py:score'}\n")
    assert rejudge(audited, "j.yaml", "--name", "llm") == 1
    err = capfd.readouterr().err
    assert "the judge failed on" in err and "judge is down" in err
    assert not (audited / "judges/llm/estimates.json").exists()
    said = judgements(audited, "llm")
    settled = {k for k, v in said.items() if not any(v.errors)}
    assert settled and all(key.startswith("frequent/") for key in settled)
    (folder / "up").write_text("")
    assert rejudge(audited, "j.yaml", "--name", "llm") == 0
    assert results(audited / "judges/llm")["estimates"] == results(audited)["estimates"]
    assert f"{len(settled)} were judged before" in capfd.readouterr().err


def test_a_judging_that_was_killed_goes_on(audited, monkeypatch):
    from tailrisk.store import RunStore

    append, left = RunStore.append_judgement, [4]

    def killed(self, *args):
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        append(self, *args)

    monkeypatch.setattr(RunStore, "append_judgement", killed)
    assert rejudge(audited, "same.yaml", "--name", "again") == 130
    assert count(audited, "judgement") == 4
    monkeypatch.setattr(RunStore, "append_judgement", append)
    assert rejudge(audited, "same.yaml", "--name", "again") == 0
    assert count(audited, "judgement") == count(audited, "batch")
    assert results(audited / "judges/again")["estimates"] == results(audited)["estimates"]


def without_last_round(folder: Path) -> int:
    """Takes the last plan and what follows out of the log; the number of its batches."""
    log = folder / "log" / "00000.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    kinds = [json.loads(line[9:])["kind"] for line in lines]
    plan = max(i for i, kind in enumerate(kinds) if kind == "plan")
    log.write_bytes(b"".join(lines[:plan]))
    return kinds[plan:].count("batch")


def test_the_audit_goes_on_under_its_own_judge_and_the_other_is_told_to_be_stale(audited, capfd):
    before = results(audited)["estimates"]
    late = without_last_round(audited)
    assert late and rejudge(audited, "strict.yaml", "--name", "strict") == 0
    stale = results(audited / "judges/strict")
    assert run(["audit", str(audited.parents[1] / "audit.yaml")]) == 0
    assert results(audited)["estimates"] == before, "the same draws again, under its own judge"
    assert results(audited / "judges/strict") == stale, "left as it is"
    capfd.readouterr()
    assert run(["show", str(audited)]) == 0
    assert "judge strict (regex, " in (shown := capfd.readouterr().out) and "stale" in shown
    assert rejudge(audited, "strict.yaml", "--name", "strict") == 0
    assert f"{late} batches judged, " in capfd.readouterr().err
    assert results(audited / "judges/strict")["audit"]["draws"] > stale["audit"]["draws"]
    assert run(["show", str(audited)]) == 0
    assert "stale" not in capfd.readouterr().out


def test_changes_of_the_runs_own_judge(audited, capfd):
    args = ["rejudge", str(audited), "--in-process", "--json", "--name", "changed"]
    assert run([*args, "--set", "judge.pattern=harm done 1"]) == 0
    told = json.loads(capfd.readouterr().out)
    assert told["judge"]["settings"]["pattern"] == "harm done 1"
    assert run(args) == 2
    assert "name another judge" in capfd.readouterr().err
    assert run([*args, "--set", "judge.patern=x"]) == 2
    assert "unknown key" in capfd.readouterr().err


def test_the_prompts_must_be_those_of_the_run(audited, tmp_path, capfd):
    own = tmp_path / "prompts.jsonl"
    moved = own.rename(tmp_path / "elsewhere.jsonl")
    assert rejudge(audited, "same.yaml") == 2
    assert "--prompts FILE" in capfd.readouterr().err
    (tmp_path / "other.jsonl").write_text('{"prompt": "something else"}\n')
    assert rejudge(audited, "same.yaml", "--prompts", str(tmp_path / "other.jsonl")) == 2
    assert "not the prompts of the run" in capfd.readouterr().err
    assert rejudge(audited, "same.yaml", "--prompts", str(moved)) == 0


def test_another_judge_may_have_a_check_of_its_own(audited, tmp_path, capfd):
    rows = [{"prompt": "p", "response": f"harm done {i}", "label": i < 10} for i in range(40)]
    rows += [{"prompt": "p", "response": f"fine {i}", "label": "safe"} for i in range(400)]
    (tmp_path / "labels.jsonl").write_text("\n".join(map(json.dumps, rows)))
    check = ["judge", "check", str(tmp_path / "strict.yaml"), str(tmp_path / "labels.jsonl")]
    assert run([*check, "--out", str(tmp_path / "c.json")]) == 0
    assert rejudge(audited, "strict.yaml", "--name", "strict", "--set", "judge.check=c.json") == 0
    by_id = {e["prompt_id"]: e for e in results(audited / "judges/strict")["estimates"]}
    assert "under the judge's resolution" in by_id["rare"]["reasons"][-1]
    assert by_id["rare"]["corrected"]["certified"][0] == 0.0 < by_id["rare"]["certified"][0]
    assert "corrected" not in results(audited)["estimates"][0]
    assert rejudge(audited, "same.yaml", "--name", "other", "--set", "judge.check=c.json") == 2
    assert "of another judge" in capfd.readouterr().err


def test_a_run_that_is_going_on_is_refused(audited, capfd):
    from tailrisk.store import RunStore, read_manifest

    with RunStore.open(audited, read_manifest(audited)):
        assert rejudge(audited, "same.yaml") == 1
    assert "another" in capfd.readouterr().err


def test_what_reads_a_log_reads_one_with_two_judges(audited):
    before = [r.verdicts.tolist() for r in final_results(audited)]
    assert rejudge(audited, "strict.yaml", "--name", "strict") == 0
    assert [r.verdicts.tolist() for r in final_results(audited)] == before
    (audited / "estimates.json").rename(audited / "kept.json")
    assert summary_of(audited)["estimates"] == json.loads((audited / "kept.json").read_text())["estimates"]


def test_a_run_of_before_some_keys_were_known_can_be_read(audited):
    path = audited / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["identity"]["judge"]["ignore_case"], manifest["config"]["judge"]["ignore_case"]
    path.write_text(json.dumps(manifest))
    assert rejudge(audited, "same.yaml", "--name", "again") == 0


def test_a_run_at_an_address(tmp_path, monkeypatch, capfd):
    address = "flaky://bucket/runs"
    FlakyStore.reset()
    monkeypatch.setenv("TAILRISK_CACHE", str(tmp_path / "here"))
    monkeypatch.setattr("tailrisk.store.remote.mirror.PAUSE_S", 0.01)
    monkeypatch.chdir(tmp_path)  # the prompts' path is read from here
    config = write_config(tmp_path, GOOD, budget={"draws": 3000, "pilot": 60, "batch": 100})
    assert run(["audit", str(config), "--set", f"run.dir={address}"]) in (0, 3)
    (tmp_path / "same.yaml").write_text("judge: {kind: regex, pattern: harm}\n")
    monkeypatch.setenv("TAILRISK_CACHE", str(tmp_path / "another-machine"))
    capfd.readouterr()
    assert rejudge(f"{address}/run", "same.yaml", "--name", "again", home=tmp_path) == 0
    err = capfd.readouterr().err
    assert f"{address}/run/judges/again/estimates.json" in err and f"{address}/run/report.html" in err
    there = Objects(f"{address}/run")
    sent = json.loads(there.read("judges/again/estimates.json"))
    assert sent["estimates"] == json.loads(there.read("estimates.json"))["estimates"]
    assert run(["show", f"{address}/run"]) == 0
    assert "again" in capfd.readouterr().out
    assert run(["audit", str(config), "--set", f"run.dir={address}"]) in (0, 3), (
        "and the audit goes on from there"
    )
    assert rejudge(f"{address}/none", "same.yaml", home=tmp_path) == 1
    assert not [name for name in Objects(address).list() if name.startswith("none")]
