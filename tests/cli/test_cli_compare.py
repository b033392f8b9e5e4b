"""``tailrisk compare`` on run folders: who is paired, what is refused, what is printed, and the exit status."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from fakerun import CASES, Case, make_run

from tailrisk.cli import run
from tailrisk.configfile import load_config

EXAMPLE = Path(__file__).parents[2] / "examples" / "compare"

WORSE = tuple(c._replace(probability=c.probability * 4) if c.id in ("rare", "rarer") else c for c in CASES)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The same audit twice, and one of a version that is worse on two prompts."""
    root = tmp_path_factory.mktemp("compare")
    make_run(root / "a")
    make_run(root / "again", seed=1)
    make_run(
        root / "worse",
        WORSE,
        seed=2,
        target={"model": "toy-2", "dtype": "float32", "sampling": {"max_new_tokens": 4}},
    )
    return root


def asked(runs, first, second, *more):
    return run(["compare", str(runs / first), str(runs / second), *more])


def test_the_same_version_twice_shows_no_difference(runs, capfd):
    assert asked(runs, "a", "again", "--fail-if-worse") == 0
    out = capfd.readouterr().out
    assert "compared: the same target twice" in out and "warning" not in out
    for id in ("frequent", "rare", "rarer"):
        assert [x for x in out.splitlines() if x.strip().startswith(f"{id} ") and "no difference shown" in x]
    for id in ("none-seen", "broken"):
        assert [x for x in out.splitlines() if x.strip().startswith(id) and "cannot be told" in x]
    assert "at least 0 of 5 prompts are worse" in out


def test_a_worse_version_is_found_and_named(runs, capfd):
    assert asked(runs, "a", "worse", "--fail-if-worse") == 4
    out = capfd.readouterr().out
    assert 'compared: target.model: "toy" in A, "toy-2" in B' in out
    lines = [line.split() for line in out.splitlines()]
    assert [w[0] for w in lines if w and w[-1] == "worse" and w[0] in {c.id for c in CASES}] == [
        "rare",
        "rarer",
    ]
    assert "at least 2 of 5 prompts are worse" in out and "B is shown to be worse" in out
    assert asked(runs, "a", "worse") == 0, "found, but not asked to fail"
    assert asked(runs, "worse", "a", "--fail-if-worse") == 0, "better is no failure"


def test_json_has_all_of_it(runs, capfd):
    assert asked(runs, "a", "worse", "--json", "--margin", "2", "--fail-if-worse") == 4
    found = json.loads(capfd.readouterr().out)
    assert (found["format"], found["version"], found["exit_code"]) == ("tailrisk compare", 1, 4)
    prompts = {p["prompt_id"]: p for p in found["prompts"]}
    rare, unseen, broken = prompts["rare"], prompts["none-seen"], prompts["broken"]
    assert rare["verdict"] == "worse" and 3 < rare["ratio"]["value"] < 5
    low, high = rare["ratio"]["simultaneous"]
    assert rare["ratio"]["interval"][0] > low > 2 and high > rare["ratio"]["interval"][1]
    assert rare["within_margin"] is False and prompts["frequent"]["within_margin"] is True
    assert rare["statement"].startswith("B is at least ") and rare["adjusted_p"] < 1e-6
    assert unseen["ratio"] == {"value": None, "interval": [0.0, None], "simultaneous": [0.0, None]}
    assert (unseen["basis"], broken["basis"]) == ("certified", "failed")
    assert rare["a"]["status"] == "ok" and rare["a"]["estimate"] < rare["b"]["estimate"]
    assert found["overall"]["mean_log_ratio"]["prompts"] == 3
    assert found["compared"] == [{"setting": "target.model", "a": '"toy"', "b": '"toy-2"'}]
    assert found["counts"]["worse"] == 2


def test_the_page_lists_every_prompt_with_both_statuses(runs, tmp_path):
    page = tmp_path / "page.md"
    assert asked(runs, "a", "worse", "--markdown", str(page)) == 0
    text = page.read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(rows) == 1 + len(CASES)
    assert all(row.count("|") == rows[0].count("|") for row in rows)
    assert "worse" in rows[1] and "failed" in text and "harm done" not in text


def test_a_limit_on_b_tells_shown_from_not_shown(runs, capfd):
    assert asked(runs, "a", "worse", "--fail-above", "0.001") == 4
    out = capfd.readouterr().out
    assert "B: 2 prompts are shown to be above 0.001: frequent, rare" in out
    assert "B: 2 prompts are not shown to be below 0.001: broken, none-seen" in out
    assert asked(runs, "a", "worse", "--fail-above", "1") == 0


def test_another_judge_or_sampling_is_refused_unless_wanted(runs, tmp_path, capfd):
    make_run(
        tmp_path / "other",
        seed=3,
        judge={"kind": "regex", "pattern": "harm|worse"},
        target={"model": "toy", "dtype": "float32", "sampling": {"max_new_tokens": 5}},
    )
    both = [str(runs / "a"), str(tmp_path / "other")]
    assert run(["compare", *both]) == 2
    err = capfd.readouterr().err
    assert "judge.pattern" in err and "target.sampling.max_new_tokens: 4 in A, 5 in B" in err
    assert "rejudge" in err and "--anyway" in err
    assert run(["compare", *both, "--anyway"]) == 0
    assert "warning: target.sampling.max_new_tokens differs" in capfd.readouterr().out


def test_other_proposals_and_budgets_are_no_matter(runs, tmp_path, capfd):
    make_run(tmp_path / "other", seed=3, rounds=(60, 300), budget={"draws": 5000, "pilot": 60, "batch": 300})
    assert run(["compare", str(runs / "a"), str(tmp_path / "other")]) == 0
    assert "warning" not in capfd.readouterr().out


def test_prompts_are_paired_by_id_and_content(runs, tmp_path, capfd):
    cases = (CASES[0], Case("new", 0.02), CASES[1])
    make_run(tmp_path / "b", cases, seed=4)
    manifest = json.loads((tmp_path / "b/manifest.json").read_text())
    manifest["prompts"][2]["digest"] = "0" * 64
    (tmp_path / "b/manifest.json").write_text(json.dumps(manifest))
    assert run(["compare", str(runs / "a"), str(tmp_path / "b"), "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert [p["prompt_id"] for p in found["prompts"]] == ["frequent"]
    assert found["unpaired"] == {
        "only_a": ["rarer", "none-seen", "broken"],
        "only_b": ["new"],
        "changed": ["rare"],
    }
    assert any("other messages" in note for note in found["notes"])
    for p in manifest["prompts"]:
        p["digest"] = "1" * 64
    (tmp_path / "b/manifest.json").write_text(json.dumps(manifest))
    assert run(["compare", str(runs / "a"), str(tmp_path / "b")]) == 2
    assert "no prompt is in both" in capfd.readouterr().err


def test_the_same_seed_and_a_run_that_goes_on_are_told(runs, tmp_path, capfd):
    make_run(tmp_path / "b", finished=False, rounds=(60, 300))
    assert run(["compare", str(runs / "a"), str(tmp_path / "b")]) == 0
    assert "same run.seed" in capfd.readouterr().out
    assert run(["compare", str(runs / "a"), str(runs / "a")]) == 2
    assert "the same run" in capfd.readouterr().err
    assert run(["compare", str(runs / "a"), str(tmp_path / "absent")]) == 1


def test_runs_on_different_kinds_of_processors_are_told_in_half_precision(tmp_path, capfd):
    for name, seed, kind in (("a", 0, "cpu A"), ("b", 1, "cpu B"), ("again", 2, "cpu A")):
        make_run(tmp_path / name, seed=seed, processors=[kind] * 3)
    assert asked(tmp_path, "a", "b") == 0
    assert "warning: A was drawn on cpu A and B on cpu B: in half precision" in capfd.readouterr().out
    assert asked(tmp_path, "a", "again") == 0
    assert "drawn on" not in capfd.readouterr().out


def test_show_takes_the_limit_too(runs, capfd):
    assert run(["show", str(runs / "a"), "--fail-above", "1e-3"]) == 4
    out = capfd.readouterr().out
    assert "1 prompt is shown to be above 0.001: frequent" in out
    assert "prompts are not shown to be below 0.001: broken, none-seen" in out
    assert run(["show", str(runs / "a"), "--fail-above", "1e-3", "--json"]) == 4
    json.loads(capfd.readouterr().out)
    assert run(["show", str(runs / "a"), "--fail-above", "1"]) == 0
    assert "no prompt reaches above 1" in capfd.readouterr().out


def test_the_example_compares_an_adapter_with_the_same_weakened(tmp_path):
    sys.path.insert(0, str(EXAMPLE))
    try:
        from weaken_adapter import weaken
    finally:
        sys.path.remove(str(EXAMPLE))
    source = EXAMPLE.parent / "quickstart" / "safety-adapter"
    weaken(source, tmp_path / "weak", 0.7)
    options = [json.loads((f / "adapter_config.json").read_text()) for f in (source, tmp_path / "weak")]
    assert options[1].pop("lora_alpha") == pytest.approx(0.7 * options[0].pop("lora_alpha"))
    assert options[0] == options[1]
    factors = [(f / "adapter_model.safetensors").read_bytes() for f in (source, tmp_path / "weak")]
    assert factors[0] == factors[1]
    safe, weakened = (
        load_config(EXAMPLE / name).model_dump(mode="json") for name in ("safe.yaml", "weakened.yaml")
    )
    assert safe.pop("run")["seed"] != weakened.pop("run")["seed"]
    assert safe["target"].pop("adapter") != weakened["target"].pop("adapter")
    assert safe == weakened
