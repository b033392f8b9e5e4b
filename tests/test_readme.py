"""The README is true: its commands run, its files and keys exist, its tables agree with the program."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
import yaml

from tailrisk.config import Config
from tailrisk.judges import KINDS as JUDGES
from tailrisk.records import Status
from tailrisk.report.tables import STATUS_MEANING

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def commands() -> list[list[str]]:
    """Command lines of all sh blocks, comments left out."""
    blocks = re.findall(r"^```sh\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    return [
        words
        for block in blocks
        for line in block.splitlines()
        if (words := shlex.split(line, comments=True))
    ]


def run(words: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *words], cwd=folder, capture_output=True, text=True, timeout=200, check=False
    )


def table_after(heading: str) -> dict[str, str]:
    """First and second column of the first table after some text."""
    rows = []
    for line in README[README.index(heading) :].splitlines():
        if line.startswith("|"):
            rows.append([cell.strip() for cell in line.strip("|").split("|")])
        elif rows:
            break
    return {row[0].strip("`"): row[1] for row in rows[2:]}


def test_the_two_commands_come_first():
    assert commands()[:2] == [["make", "audit"], ["make", "test"]]


@pytest.mark.parametrize("target", [words[1] for words in commands() if words[0] == "make"])
def test_make_targets_exist(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_the_cheap_commands_run_in_order(tmp_path):
    cheap = [words for words in commands() if words[:2] in (["tailrisk", "init"], ["tailrisk", "plan"])]
    assert [words[1] for words in cheap] == ["init", "plan"]
    for words in cheap:
        done = run(words, tmp_path)
        assert done.returncode == 0, done.stderr
    assert "certified" in done.stdout


def test_the_audit_of_init_can_be_submitted_as_shown(tmp_path):
    """As far as it goes without a cluster: nothing answers at this address."""
    shown = [words for words in commands() if words[0] == "tailrisk"]
    (submit,) = [words for words in shown if words[:3] == ["tailrisk", "submit", "my-audit/tailrisk.yaml"]]
    run(next(words for words in shown if words[1] == "init"), tmp_path)
    done = run([*submit, "--address", "http://127.0.0.1:1"], tmp_path)
    assert done.returncode == 1, done.stderr
    assert "sending 2 files" in done.stderr and "no job server of Ray answers" in done.stderr


def test_the_metrics_are_those_of_the_program():
    from tailrisk.cluster.metrics import COUNTERS, GAUGES

    listed = table_after("### What can be seen")
    wanted = {f"ray_tailrisk_{name}_total": "" for name in COUNTERS} | {"ray_tailrisk_batch_seconds": ""}
    wanted |= {
        f"ray_tailrisk_{name}": ", ".join(f"`{tag}`" for tag in tags) for name, (_, *tags) in GAUGES.items()
    }
    assert listed == wanted


@pytest.mark.slow
def test_doctor_runs(tmp_path):
    done = run(["tailrisk", "doctor"], tmp_path)
    assert done.returncode == 0, done.stdout
    assert "✓ torch" in done.stdout


def test_the_other_commands_are_spelled_as_the_program_takes_them():
    """An option that does not exist would end with 2 and 'No such option' before the file is looked at."""
    for words in commands():
        if words[0] == "tailrisk":
            env = {**os.environ, "COLUMNS": "200"}
            verb = words[1:3] if words[1] in ("judge", "train") else words[1:2]
            help_text = subprocess.run(
                [sys.executable, "-m", "tailrisk", *verb, "--help"],
                capture_output=True,
                text=True,
                env=env,
            ).stdout
            for option in [word for word in words if word.startswith("--")]:
                assert option in help_text


def test_statuses_are_explained_as_in_the_report():
    assert table_after("| status ") == {s.value: STATUS_MEANING[s] for s in Status}


def test_sections_kinds_and_judges_are_complete():
    assert set(table_after("| section ")) == set(Config.model_fields)
    from tailrisk.proposals import KINDS

    assert set(table_after("| kind            |")) == set(KINDS)
    assert set(table_after("| kind      |")) == set(JUDGES)


def test_every_key_named_in_the_sections_exists():
    for section, text in table_after("| section ").items():
        if section in ("proposals", "judge"):
            continue
        annotation = Config.model_fields[section].annotation
        known = next(t for t in (annotation, *get_args(annotation)) if hasattr(t, "model_fields"))
        values = {"smollm2", "local", "auto", "host:port"}
        for key in set(re.findall(r"`([^`]+)`", text)) - values:
            assert key in known.model_fields, (section, key)


def test_the_proposals_shown_are_understood():
    (text,) = re.findall(r"^```yaml\n(proposals:.*?)^```", README, re.DOTALL | re.MULTILINE)
    rest = {"target": {"model": "m"}, "prompts": {"path": "p"}, "judge": {"kind": "refusal"}}
    (proposal,) = Config.model_validate({**rest, **yaml.safe_load(text)}).proposals
    assert [change.kind for change in proposal.changes] == ["system_prompt", "ablation", "vector", "lora"]


def test_the_judges_shown_are_understood():
    texts = re.findall(r"^```yaml\n((?:judge|strong_judge):.*?)^```", README, re.DOTALL | re.MULTILINE)
    found = []
    for text in texts:
        rest = {"target": {"model": "m"}, "prompts": {"path": "p"}, "judge": {"kind": "refusal"}}
        shown = Config.model_validate({**rest, **yaml.safe_load(text)})
        found += [type(judge).__name__ for _, judge in shown.judges]
    assert found == ["EndpointJudge", "RubricJudge", "RubricJudge", "RefusalJudge", "PythonJudge"]


def test_files_named_exist():
    for name in ("LICENSE", "NOTICE", "Makefile", "examples/quickstart/audit.yaml"):
        assert (ROOT / name).exists(), name
