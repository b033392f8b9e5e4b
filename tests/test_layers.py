"""The rooms of the house: imports run downwards only, heavy libraries stay in theirs, modules stay small."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import tailrisk

ROOT = Path(tailrisk.__file__).parent
MODULES = sorted(ROOT.rglob("*.py"))
MOST_LINES = 350

# What each room may import of the others when it is loaded or used; the plain modules are open to all.
PLAIN = {
    "errors",
    "garbage",
    "seeds",
    "records",
    "config",
    "configfile",
    "proposalconfig",
    "grid",
    "strictyaml",
}
PLAIN |= {"prompts", "promptfiles", "searchgrid", "trainingconfig", "methodconfig", "clusterconfig"}
PLAIN |= {"judgeconfig", "judgesection", "endpointconfig", "modeljudgeconfig", "judgefile", "labelfiles"}
PLAIN |= {
    "budgetconfig",
    "cachedir",
    "configdocs",
    "events",
    "nodelabels",
    "runconfig",
    "targetconfig",
    "traffic",
}
BELOW: dict[str, set[str]] = {
    "stats": set(),
    "store": set(),
    "judges": {"models", "audit.protocols"},
    "models": {"audit.protocols"},
    "proposals": {"models", "audit.protocols"},
    "perturbations": {"models", "judges"},
    "training": {"models", "proposals", "judges", "stats", "store.atomic", "audit.protocols"},
    "report": {"store", "stats"},
    "audit": {"stats", "store"},
    "cluster": {"audit", "judges", "proposals", "models", "training"},
    "tracking": {"audit", "store", "stats", "report"},
    "cli": {"audit", "cluster", "judges", "models", "report", "stats", "store", "tracking"}
    | {"proposals", "training", "perturbations"},
}
HEAVY: dict[str, set[str]] = {
    "torch": {"models", "proposals", "training", "cluster"},
    "transformers": {"models", "proposals", "training"},
    "peft": {"models", "proposals", "training"},
    "deepspeed": {"training"},
    "aiohttp": {"judges", "cluster"},
    "fsspec": {"store"},
    "sentence_transformers": {"perturbations"},
    "ray": {"cluster"},
    "mlflow": {"tracking"},
    "matplotlib": {"report"},
    "inspect_ai": {"report"},
    "jinja2": {"report"},
    "typer": {"cli"},
    "rich": {"cli", "report"},
}


def imports(path: Path) -> Iterator[str]:
    """Absolute names of everything a module imports anywhere, those for type checkers only left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room(path: Path) -> str:
    """The room of a module; '' for a plain module of the package itself."""
    parts = path.relative_to(ROOT).parts
    return parts[0] if len(parts) > 1 else ""


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_run_downwards(path):
    here = room(path)
    for name in imports(path):
        parts = name.split(".")
        if parts[0] != "tailrisk":
            owners = HEAVY.get(parts[0])
            assert owners is None or here in owners, f"{name} belongs to {owners}"
            continue
        inner = parts[1] if len(parts) > 1 else ""
        if inner == here or inner in PLAIN or inner.startswith("__") or not inner:
            continue
        if path.name == "__main__.py":
            assert inner == "cli"
            continue
        assert here, f"plain module imports the room {inner}"
        allowed = BELOW[here]
        assert inner in allowed or ".".join(parts[1:3]) in allowed, f"{here} may not import {name}"


@pytest.mark.parametrize("path", sorted((ROOT / "stats").rglob("*.py")), ids=lambda p: p.name)
def test_the_statistics_need_numpy_and_scipy_only(path):
    outside = {name.split(".")[0] for name in imports(path)} - set(sys.stdlib_module_names)
    assert outside <= {"tailrisk", "numpy", "scipy", "arviz_stats"}


def test_every_room_has_its_rule():
    assert {room(path) for path in MODULES} - {""} == set(BELOW)


def test_plain_modules_are_all_known():
    assert {p.stem for p in ROOT.glob("*.py")} - {"__init__", "__main__"} == PLAIN


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_modules_are_small_and_say_what_they_are_for(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MOST_LINES
    assert ast.get_docstring(ast.parse(text)), "no module docstring"


def test_the_public_api():
    names = sorted(name for name in vars(tailrisk) if not name.startswith("_"))
    rooms = {path.name for path in ROOT.iterdir() if path.is_dir()} | PLAIN | {"cli"}
    assert [name for name in names if name not in rooms] == []
    assert tailrisk.__version__ == "0.1.0"
