"""``tailrisk train direction`` from files to a file: what it prints, writes and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from plantedmodel import BAD, BLOCKS, GOOD, HIDDEN, LAYER, NO, make_planted_model, prompts
from trainkit import check_ctrl_c, check_help, check_refused, check_unwritable

from tailrisk.cli import run
from tailrisk.configfile import load_config
from tailrisk.models import preflight
from tailrisk.models.directions import load_direction
from tailrisk.models.loading import model_digest, resolve_model
from tailrisk.models.vectorfiles import read_vectors
from tailrisk.proposals import build_laws
from tailrisk.records import Prompt

CONFIG = """
target: {model: model, dtype: float32, sampling: {max_new_tokens: 3}}
prompts: {path: not-there.txt}
proposals: [{name: ablated, kind: ablation, direction: refusal.safetensors}]
judge: {kind: regex, pattern: "w21"}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("train")
    make_planted_model(base / "model")
    (base / "audit.yaml").write_text(CONFIG)
    for name, kind in (("bad", BAD), ("good", GOOD)):
        rows = [json.dumps({"prompt": p.text}) for p in prompts(kind)]
        (base / f"{name}.jsonl").write_text("\n".join(rows) + "\n")
    (base / "mixed.txt").write_text("\n".join(p.text for p in (*prompts(BAD, 6), *prompts(GOOD, 6))) + "\n")
    return base


def train(folder: Path, *more: str, out: Path, **files: str) -> int:
    names = {"harmful": "bad.jsonl", "harmless": "good.jsonl", **files}
    options = [part for key, name in names.items() for part in (f"--{key}", str(folder / name))]
    return run(["train", "direction", str(folder / "audit.yaml"), *options, "--out", str(out), *more])


def test_from_prompts_to_a_file_that_proposals_read(folder: Path, capfd, tmp_path: Path) -> None:
    out = tmp_path / "new" / "refusal.safetensors"
    assert train(folder, "--refusals", NO, "--json", out=out) == 0
    printed, err = capfd.readouterr()
    told = json.loads(printed)

    direction = load_direction(out)
    assert direction.layer == LAYER == told["choice"]["candidate"]["layer"]
    assert direction.model == model_digest(resolve_model(str(folder / "model"), Path("/")))
    assert direction.adapter == ""
    assert read_vectors(out).one(HIDDEN).shape == (HIDDEN,)
    assert list(read_vectors(out).at(None, HIDDEN, BLOCKS)) == [LAYER]

    surface = json.loads(out.with_suffix(".json").read_text())
    assert told["paths"] == {"direction": str(out), "scores": str(out.with_suffix(".json"))}
    assert surface["why"] == told["why"] and told["why"] in err
    by_layer = {c["layer"]: c for c in surface["candidates"]}
    assert sorted(by_layer) == [1, 2, 3], "block 0 shows no difference, the last fifth is not tried"
    assert by_layer[1]["cut_by"] == ["induce"] and by_layer[3]["cut_by"] == ["kl"]
    assert surface["not_scored"] == {"last blocks": 2, "no difference": 1}
    assert surface["limits"] == {"layers": 4, "max_kl": 0.1, "min_induce": 0.0}

    text = " ".join(err.split())
    assert f"chosen: layer {LAYER}, position -1 ('assistant'): lowest refusal score" in text
    assert "among 1 of 3 candidates with KL < 0.1 and induced refusal" in text
    assert "3 candidates; cut (one may fail several): KL 1, refusal not induced 1" in text
    assert f"kind: vector, vector: refusal.safetensors, coefficient: -1.0}} # at layer {LAYER}" in text
    assert "w3 w3" not in err, "no prompt is printed"


def test_an_audit_reads_the_file_in_both_kinds(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "refusal.safetensors"
    assert train(folder, "--refusals", NO, "-q", out=out) == 0
    named = [
        {"name": "ablated", "kind": "ablation", "direction": str(out)},
        {"name": "pushed", "kind": "vector", "vector": str(out), "coefficient": -1.0},
        {"name": "pulled", "kind": "vector", "vector": str(out)},
    ]
    config = load_config(folder / "audit.yaml", [f"proposals={json.dumps(named)}"])
    texts = [*prompts(BAD, 3, start=1), *prompts(GOOD, 3, start=1)]
    assert preflight.check(config, texts).directions.keys() == {"ablated", "pushed", "pulled"}
    laws = build_laws(config)

    def refusals(component: int, prompt: Prompt) -> int:
        drawn = laws.sample(prompt, component, 20, seed=1)
        return sum(text.strip() == NO for text in laws.texts([t[:1] for t in drawn.tokens]))

    for bad in texts[:3]:
        assert [refusals(k, bad) for k in range(3)] == [20, pytest.approx(0, abs=4), 0]
    for good in texts[3:]:
        assert (refusals(0, good), refusals(3, good)) == (0, 20)


def test_where_none_passes_the_scores_are_kept_and_the_status_is_1(folder, capfd, tmp_path) -> None:
    out = tmp_path / "d.safetensors"
    assert train(folder, "--refusals", NO, "--layers", "1,3", out=out) == 1
    err = capfd.readouterr().err
    assert "error: no direction passes: of 2 candidates, 1 fail KL < 0.1" in err and "Traceback" not in err
    assert not out.exists()
    assert len(json.loads(out.with_suffix(".json").read_text())["candidates"]) == 2
    assert train(folder, "--refusals", NO, "--layers", "1,3", "--relax", out=out) == 0
    err = " ".join(capfd.readouterr().err.split())
    assert "relaxed: KL 0.1 to 12.8" in err
    assert load_direction(out).layer == 3


def test_quiet_shows_nothing(folder, capfd, tmp_path) -> None:
    assert train(folder, "--refusals", NO, "--layers", "2", "-q", out=tmp_path / "d.safetensors") == 0
    assert capfd.readouterr() == ("", "")


def test_prompts_that_say_the_opposite_are_left_out(folder, capfd, tmp_path) -> None:
    out = tmp_path / "d.safetensors"
    given = ("--refusals", NO, "--layers", "2", "--limit", "11")
    assert train(folder, *given, out=out, harmful="mixed.txt", harmless="good.jsonl") == 2
    assert "prompts are in" in capfd.readouterr().err
    (folder / "other.jsonl").write_text(
        "\n".join(json.dumps({"prompt": p.text}) for p in prompts(GOOD, start=2)) + "\n"
    )
    assert train(folder, *given, out=out, harmful="mixed.txt", harmless="other.jsonl") == 0
    assert "5 left out" in capfd.readouterr().err


REFUSED = [
    (["--max-kl", "0"], {}, "--max-kl 0"),
    (["--layers", "a-b"], {}, "--layers a-b: 'a-b' is no block"),
    (["--layers", "3-1"], {}, "--layers 3-1"),
    (["--validation", "0"], {}, "--validation 0: keeps 0 of 12 harmful"),
    (["--limit", "3"], {}, "--harmful: 3 prompts; a direction needs at least 4"),
    (["--dtype", "int8"], {}, "target.dtype"),
    (["--set", "target.colour=red"], {}, "target.colour"),
    (["--set", "target.model=nowhere/at all"], {}, "no such folder"),
    ([], {"harmful": "none.jsonl"}, "--harmful: "),
    ([], {"harmless": "audit.yaml"}, "--harmless: "),
    ([], {"harmless": "bad.jsonl"}, "12 prompts are in"),
]


@pytest.mark.parametrize(("options", "files", "message"), REFUSED)
def test_what_is_wrong_is_said_before_a_model_is_loaded(
    folder, capfd, tmp_path, monkeypatch, options, files, message
) -> None:
    out = tmp_path / "d.safetensors"
    check_refused(
        lambda: train(folder, *options, out=out, **files),
        "load_target",
        message,
        tmp_path,
        capfd,
        monkeypatch,
    )


def test_a_place_that_cannot_be_written_is_refused_first(folder, capfd, tmp_path) -> None:
    check_unwritable(lambda out: train(folder, out=out), "d", tmp_path, capfd)
    (tmp_path / "d.safetensors").mkdir()
    assert train(folder, out=tmp_path / "d.safetensors") == 2
    assert "is a folder" in capfd.readouterr().err


def test_ctrl_c_is_one_line(folder, capfd, tmp_path, monkeypatch) -> None:
    import tailrisk.training.directions as module

    out = tmp_path / "d.safetensors"
    check_ctrl_c(
        lambda: train(folder, "--refusals", NO, out=out), module, "score_directions", capfd, monkeypatch
    )


def test_help_is_there(capfd) -> None:
    check_help("direction", ["--harmful", "--max-kl"], capfd)
