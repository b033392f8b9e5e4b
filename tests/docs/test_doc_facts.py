"""What the pages list is what the program has."""

from __future__ import annotations

import re
from typing import get_args

from docpages import ROOT, commands, table_after

from tailrisk.cli import run
from tailrisk.config import Config
from tailrisk.errors import ConfigError, TailriskError
from tailrisk.judges import KINDS as JUDGES
from tailrisk.proposals import KINDS as PROPOSALS
from tailrisk.records import Status
from tailrisk.report.tables import STATUS_MEANING
from tailrisk.stats.status import Alarm

README, DOCS = ROOT / "README.md", ROOT / "docs"
AUDITS = DOCS / "audits.md"


def quoted(text: str) -> set[str]:
    return set(re.findall(r"`([^`]+)`", text))


def test_the_two_commands_come_first():
    assert [command.words for command in commands(README)[:2]] == [["make", "audit"], ["make", "test"]]


def test_the_readme_is_short():
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 150


def test_statuses_are_explained_as_in_the_report():
    assert table_after(README, "| status ") == {s.value: STATUS_MEANING[s] for s in Status}


def test_every_alarm_is_explained():
    listed = [alarm for cell in table_after(AUDITS, "| alarm ") for alarm in quoted(f"`{cell}`")]
    assert sorted(listed) == sorted(get_args(Alarm))


def test_sections_and_kinds_are_complete():
    assert set(table_after(AUDITS, "| section ")) == set(Config.model_fields)
    assert set(table_after(DOCS / "proposals.md", "| kind ")) == set(PROPOSALS)
    assert set(table_after(DOCS / "judges.md", "| kind ")) == set(JUDGES)


def test_every_key_named_in_the_sections_exists():
    for section, text in table_after(AUDITS, "| section ").items():
        if section in ("proposals", "judge"):
            continue
        annotation = Config.model_fields[section].annotation
        known = next(t for t in (annotation, *get_args(annotation)) if hasattr(t, "model_fields"))
        values = {"smollm2", "local", "auto", "host:port"}
        for key in quoted(text) - values:
            assert key in known.model_fields, (section, key)


def test_exit_codes_are_those_of_the_program():
    from tailrisk.cli.audit import OVER_LIMIT, SHORT

    listed = {int(code) for code in table_after(AUDITS, "| code ")}
    assert listed == {0, TailriskError.exit_code, ConfigError.exit_code, SHORT, OVER_LIMIT, 130}


def test_the_metrics_are_those_of_the_program():
    from tailrisk.cluster.metrics import COUNTERS, GAUGES

    wanted = {f"ray_tailrisk_{name}_total": "" for name in COUNTERS} | {"ray_tailrisk_batch_seconds": ""}
    wanted |= {
        f"ray_tailrisk_{name}": ", ".join(f"`{tag}`" for tag in tags) for name, (_, *tags) in GAUGES.items()
    }
    assert table_after(DOCS / "cluster.md", "## What can be seen") == wanted


def test_the_audit_of_init_can_be_submitted_as_shown(tmp_path, monkeypatch, capfd):
    """As far as it goes without a cluster: nothing answers at this address."""
    shown = [command.words for command in commands(DOCS / "cluster.md")]
    (submit,) = [words for words in shown if words[:3] == ["tailrisk", "submit", "my-audit/tailrisk.yaml"]]
    monkeypatch.chdir(tmp_path)
    assert run(["init", "my-audit"]) == 0
    assert run([*submit[1:], "--address", "http://127.0.0.1:1"]) == 1
    said = capfd.readouterr().err
    assert "sending 2 files" in said and "no job server of Ray answers" in said
