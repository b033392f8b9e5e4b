"""``tailrisk train persona`` from a trait's file to a proposal: what it prints, writes and refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from plantedmodel import BLOCKS, HIDDEN, LAYER, NO, make_planted_model
from trainkit import check_ctrl_c, check_help, check_refused, check_unwritable

from tailrisk.cli import run
from tailrisk.configfile import load_config
from tailrisk.models import preflight
from tailrisk.models.loading import model_digest, resolve_model
from tailrisk.models.vectorfiles import read_vectors
from tailrisk.proposals import build_laws
from tailrisk.records import Prompt

CONFIG = """
run: {seed: 5}
target: {model: model, dtype: float32, sampling: {max_new_tokens: 3}}
prompts: {path: not-there.txt}
proposals: [{name: pushed, kind: vector, vector: no-sayer.safetensors}]
judge: {kind: regex, pattern: "w20"}
"""
QUESTIONS = [f"w{a} w{b}" for a in (11, 12, 13) for b in (14, 15)]
TRAIT: dict[str, Any] = {
    "name": "no-sayer",
    "positive": ["w3 w4", "w5 w5"],
    "negative": ["w7 w8", "w9 w10"],
    "questions": QUESTIONS,
    "judge": {"kind": "python", "function": "judges.py:says_no"},
    "coherence": {"kind": "python", "function": "judges.py:coherent"},
}
JUDGES = f'''
def says_no(prompt, response):
    return float(response.split()[:1] == ["{NO}"])

def unsure(prompt, response):
    return None if len(set(response.split())) == 3 else says_no(prompt, response)

def coherent(prompt, response):
    return 1.0

def broken(prompt, response):
    raise RuntimeError(response)
'''
SMALL = ("--samples", "4", "--layers", "2,4", "--coefficients", "0.005,0.2,0.5", "--answers", "5")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("train")
    make_planted_model(base / "model")
    (base / "audit.yaml").write_text(CONFIG)
    (base / "judges.py").write_text(JUDGES)
    write(base)
    return base


def write(folder: Path, name: str = "trait.yaml", **changes: Any) -> Path:
    path = folder / name
    path.write_text(yaml.safe_dump({**TRAIT, **changes}, sort_keys=False))
    return path


def train(folder: Path, *more: str, out: Path, trait: str = "trait.yaml") -> int:
    given = [str(folder / "audit.yaml"), "--trait", str(folder / trait), "--out", str(out)]
    return run(["train", "persona", *given, *SMALL, *more])


def hidden(text: str) -> bool:
    """Whether a text holds no word of the prompts, the questions and the answers: the model's own are all w0 ..."""
    return not any(f"w{n}" in text.split() for n in range(32)) and not any(q in text for q in QUESTIONS)


def test_from_a_trait_to_a_file_that_a_proposal_reads(folder: Path, capfd, tmp_path: Path) -> None:
    out = tmp_path / "new" / "no-sayer.safetensors"
    assert train(folder, "--json", out=out) == 0
    printed, err = capfd.readouterr()
    told = json.loads(printed)

    assert list(read_vectors(out).at(None, HIDDEN, BLOCKS)) == list(range(BLOCKS))
    assert told["paths"] == {"vectors": str(out), "settings": str(out.with_suffix(".json"))}
    surface = json.loads(out.with_suffix(".json").read_text())
    assert surface == {key: value for key, value in told.items() if key not in ("proposal", "paths")}
    assert surface["model"] == model_digest(resolve_model(str(folder / "model"), Path("/")))
    assert (surface["seed"], surface["adapter"], surface["tokens"]) == (5, "", "all")
    assert surface["pairs"]["drawn"] == 24 >= surface["pairs"]["kept"] > 20
    assert (surface["target"]["answers"], surface["cells"][0]["answers"]) == (60, 15)
    assert (surface["chosen"]["layer"], surface["chosen"]["coefficient"]) == (LAYER, 0.2)

    text = " ".join(err.split())
    assert (
        f"kept {surface['pairs']['kept']} of 24 pairs of answers: 24 positive ones have the trait, " in text
    )
    assert "layer x 0.005 x 0.2 x 0.5" in text
    assert f" {LAYER} " in text and "*100 (100)" in text
    assert f"chosen: layer {LAYER}, coefficient 0.2: trait and coherent in 15 of 15 answers" in text
    assert "answers: 48 to do" in text and "steering: 150 of 150 in" in text
    assert hidden(printed) and hidden(err), "no prompt and no answer is printed"


def test_the_printed_line_is_a_proposal_of_the_audit(folder: Path, capfd, tmp_path: Path) -> None:
    """Pasted into the configuration it is checked, loaded, and says what the trait is."""
    out = folder / "vectors" / "no-sayer.safetensors"
    assert train(folder, out=out) == 0
    out_text, err = capfd.readouterr()
    assert out_text == ""
    line = err.rstrip().splitlines()[-1]
    assert line == (
        "  - {name: no-sayer-vector, kind: vector, vector: vectors/no-sayer.safetensors, layers: [2], "
        "coefficient: 0.2, tokens: all}"
    )
    (fields,) = yaml.safe_load(line)
    config = load_config(folder / "audit.yaml", [f"proposals={json.dumps([fields])}"])
    question = Prompt(id="p", messages=({"role": "user", "content": "w12 w16"},))
    assert preflight.check(config, [question]).directions.keys() == {"no-sayer-vector"}
    laws = build_laws(config)
    said = [
        sum(text.split()[:1] == [NO] for text in laws.texts(laws.sample(question, k, 40, seed=1).tokens))
        for k in (0, 1)
    ]
    assert said[0] < 8 and said[1] == 40


def test_quiet_shows_nothing_and_the_seed_is_the_audits_own(folder: Path, capfd, tmp_path: Path) -> None:
    def cells(*more: str) -> Any:
        assert train(folder, "-q", *more, out=tmp_path / "v.safetensors") == 0
        told = json.loads((tmp_path / "v.json").read_text())
        return told["seed"], read_vectors(tmp_path / "v.safetensors").digest

    own = cells()
    assert cells("--seed", "5") == own
    other = cells("--set", "run.seed=6")
    assert other[0] == 6 and other[1] != own[1]
    assert capfd.readouterr() == ("", "")


def test_the_tokens_asked_for_are_steered_and_proposed(folder: Path, capfd, tmp_path: Path) -> None:
    """A planted answer is decided by the prompt's last token, so a vector for the response comes too late."""
    out = tmp_path / "v.safetensors"
    assert train(folder, "--tokens", "prompt", "--layers", "2", out=out) == 0
    assert capfd.readouterr().err.rstrip().endswith("layers: [2], coefficient: 0.2, tokens: prompt}")
    assert train(folder, "--tokens", "response", "--layers", "2", out=out) == 1
    told = json.loads(out.with_suffix(".json").read_text())
    assert told["tokens"] == "response" and told["chosen"] is None


def test_where_no_setting_helps_the_vectors_are_kept_and_the_status_is_1(folder, capfd, tmp_path) -> None:
    out = tmp_path / "v.safetensors"
    assert train(folder, "--layers", "1", "--coefficients", "0.005,-0.2", "--json", out=out) == 1
    printed, err = capfd.readouterr()
    told = json.loads(printed)
    assert told["chosen"] is None and told["proposal"] is None
    assert "error: trait 'no-sayer': none of 2 settings clearly gives more than the target" in err
    assert f"The vectors are in {out} all the same; try other --layers" in err
    assert "Traceback" not in err
    assert read_vectors(out).layers.keys() == set(range(BLOCKS))
    assert json.loads(out.with_suffix(".json").read_text())["chosen"] is None


def test_answers_that_a_judge_cannot_settle_are_counted(folder, capfd, tmp_path) -> None:
    write(folder, "unsure.yaml", judge={"kind": "python", "function": "judges.py:unsure"})
    out = tmp_path / "v.safetensors"
    assert train(folder, "--samples", "12", trait="unsure.yaml", out=out) in (0, 1)
    text = " ".join(capfd.readouterr().err.split())
    told = json.loads(out.with_suffix(".json").read_text())
    assert told["pairs"]["unsettled"] > 0
    assert f"of {told['pairs']['unsettled']} a judge cannot say" in text
    unsettled = sum(rates["unsettled"] for rates in (told["target"], *told["cells"]))
    assert (
        unsettled > 0
        and f"of {unsettled} answers a judge cannot say; they count as without the trait" in text
    )


def test_too_few_pairs_are_an_error_that_counts_them_and_writes_nothing(folder, capfd, tmp_path) -> None:
    write(folder, "never.yaml", judge={"kind": "regex", "pattern": "^never"})
    assert train(folder, trait="never.yaml", out=tmp_path / "v.safetensors") == 2
    err = " ".join(capfd.readouterr().err.split())
    assert (
        "error: trait 'no-sayer': only 0 of 24 pairs of answers can be kept, 8 are needed: 0 positive" in err
    )
    assert "--samples" in err and "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_a_broken_judge_ends_it_without_showing_an_answer(folder, capfd, tmp_path) -> None:
    write(folder, "broken.yaml", coherence={"kind": "python", "function": "judges.py:broken"})
    assert train(folder, trait="broken.yaml", out=tmp_path / "v.safetensors") == 1
    err = capfd.readouterr().err
    assert (
        "error: coherence: failed on all 4 answers to question-1 with RuntimeError; repair the judge" in err
    )
    assert hidden(err)


REFUSED = [
    (["--coefficients", "1,x"], {}, "--coefficients 1,x: 'x' is no multiple of a vector"),
    (["--coefficients", "1,0"], {}, "--coefficients 1,0: '0' is no multiple"),
    (["--coefficients", "nan"], {}, "--coefficients nan: "),
    (["--coefficients", "1,,2"], {}, "--coefficients 1,,2: '' is no multiple"),
    (["--layers", "a-b"], {}, "--layers a-b: 'a-b' is no block"),
    (["--layers", "2,6"], {}, "--layers 6: the target has blocks 0 to 5"),
    (["--samples", "1"], {}, "--samples 1: 3 questions under 2 pairs of system prompts give 6 pairs"),
    (
        ["--answers", "1", "--coefficients", "1,2,3,4,5,6,7,8,9,10,11,12"],
        {},
        "--answers 1: 3 answers a setting are too few",
    ),
    (["--set", "target.colour=red"], {}, "target.colour"),
    (["--set", "target.model=nowhere/at all"], {}, "no such folder"),
    (["--set", "target.sampling.max_new_tokens=130"], {}, "prompt 'question-1' under proposal 'positive-1'"),
    ([], {"trait": "none.yaml"}, "none.yaml: no such file"),
    ([], {"trait": "audit.yaml"}, "audit.yaml:2: run: unknown key"),
    ([], {"trait": "blank.yaml"}, "blank.yaml:8: questions: "),
    ([], {"trait": "nojudge.yaml"}, "coherence.function: 'judges.py:coherence': no 'coherence' in"),
]


@pytest.mark.parametrize(("options", "files", "message"), REFUSED)
def test_what_is_wrong_is_said_before_a_model_is_loaded(
    folder, capfd, tmp_path, monkeypatch, options, files, message
) -> None:
    write(folder, "blank.yaml", questions=[])
    write(folder, "nojudge.yaml", coherence={"kind": "python", "function": "judges.py:coherence"})
    out = tmp_path / "v.safetensors"
    check_refused(
        lambda: train(folder, *options, out=out, **files), "load_model", message, tmp_path, capfd, monkeypatch
    )


@pytest.mark.parametrize(
    ("option", "value"), [("--samples", "0"), ("--answers", "0"), ("--tokens", "last"), ("--seed", "-1")]
)
def test_values_that_an_option_does_not_take_name_it(
    folder, capfd, tmp_path, option: str, value: str
) -> None:
    assert train(folder, option, value, out=tmp_path / "v.safetensors") == 2
    assert option in capfd.readouterr().err


def test_a_place_that_cannot_be_written_is_refused_first(folder, capfd, tmp_path) -> None:
    check_unwritable(lambda out: train(folder, out=out, trait="none.yaml"), "v", tmp_path, capfd)


def test_ctrl_c_is_one_line(folder, capfd, tmp_path, monkeypatch) -> None:
    import tailrisk.training.persona as module

    out = tmp_path / "v.safetensors"
    check_ctrl_c(lambda: train(folder, out=out), module, "find_vectors", capfd, monkeypatch)


def test_help_is_there(capfd) -> None:
    check_help("persona", ["--trait", "--coefficients"], capfd)
