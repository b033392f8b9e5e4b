"""The pages are true: each command is run, or held against the program where a marker says why it cannot be run here;
each piece of a configuration is one. The convention is at the head of ``docpages``."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from docpages import FINISHED, PAGES, PROGRAMS, ROOT, Block, Command, blocks, commands, files, inline, read
from doctoy import examples, finished_audit, stand_ins

from tailrisk.cli import run
from tailrisk.cli.app import app
from tailrisk.config import Config
from tailrisk.configfile import load_config

TEMPLATE = ROOT / "tailrisk" / "cli" / "templates"
REST = {"target": {"model": "m"}, "prompts": {"path": "p.txt"}, "judge": {"kind": "refusal"}}
WITH_A_CONFIGURATION = {"audit", "plan", "submit", "train direction", "train persona", "train lora"}
QUICK = {"cat", "head", "ls", "cp", "mkdir"}
"""Programs that a page may run beside tailrisk itself."""


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def runs(page: Path) -> list[Command]:
    return [command for command in commands(page) if command.block.reason is None]


def held(page: Path) -> list[Command]:
    return [command for command in commands(page) if command.block.reason is not None]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    finished_audit(folder)
    return folder


@pytest.mark.parametrize("page", [page for page in PAGES if runs(page)], ids=name)
def test_the_commands_of_a_page_run_in_order(page: Path, tmp_path: Path, monkeypatch, request) -> None:
    stand_ins(monkeypatch)
    monkeypatch.chdir(tmp_path)
    if any("examples/" in command.line for command in runs(page)):
        examples(tmp_path)
    if FINISHED in read(page):
        shutil.copytree(request.getfixturevalue("finished"), tmp_path, dirs_exist_ok=True)
    for path, content in files(page).items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(content, encoding="utf-8")
    for command in runs(page):
        code, said = ended(command)
        wanted = {0, 3} if command.exits is None else {command.exits}
        assert code in wanted, f"{command.block.place}: {command.line.strip()}: ended with {code}\n{said}"


def ended(command: Command) -> tuple[int, str]:
    """Exit status, and what was said; a pipe is cut off, what goes to a file goes there."""
    words, target = command.words, None
    if ">" in words:
        target = Path(words[words.index(">") + 1])
        words = words[: words.index(">")]
    words = words[: words.index("|")] if "|" in words else words
    assert words[0] in {"tailrisk", *QUICK}, (
        f"{command.block.place}: {words[0]} is not run by the tests: say why in front of the block, with "
        "<!-- not run: ... -->"
    )
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run(words[1:]) if words[0] == "tailrisk" else quick(words)
    if target is not None:
        target.write_text(out.getvalue(), encoding="utf-8")
    return code, (out.getvalue() + err.getvalue())[-3000:]


def quick(words: list[str]) -> int:
    import subprocess

    return subprocess.run(words, capture_output=True, check=False).returncode


def parsed(group: Any, words: list[str]) -> tuple[str, dict[str, Any]]:
    """The verb and its parameters, read as the program reads them. Errors: those of the library of the command line
    for what the program would refuse; it is one of its own in some versions of typer, hence no class of click here."""
    command, verb = group, []
    while hasattr(command, "commands"):
        assert words and words[0] in command.commands, f"no such verb: {' '.join([*verb, *words[:1]])}"
        verb.append(words[0])
        command = command.commands[words[0]]
        words = words[1:]
    made = command.make_context(" ".join(verb), list(words))
    return " ".join(verb), made.params


@pytest.mark.parametrize("page", [page for page in PAGES if held(page)], ids=name)
def test_what_is_not_run_is_spelled_as_the_programs_take_it(page: Path, monkeypatch) -> None:
    for command in held(page):
        words = command.words
        if words[0] == "export":
            monkeypatch.setenv(*words[1].split("=", 1))
        try:
            check(words, page)
        except Exception as error:
            said = getattr(error, "format_message", error.__str__)()
            raise AssertionError(f"{command.block.place}: {command.line.strip()}: {said}") from error


def check(words: list[str], page: Path) -> None:
    """One command line, as far as it can be looked at without running it."""
    for word in words:
        if re.match(r"(examples|clusters|tests)/[\w./-]+$", word) and words[words.index(word) - 1] != "--out":
            assert (ROOT / word).exists(), f"{word} is not there"
    if words[0] == "tailrisk":
        verb, given = parsed(typer.main.get_command(app), words[1:])
        if verb in WITH_A_CONFIGURATION:
            audits(given, page)
    elif words[0] == "make":
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        targets = [word for word in words[1:] if "=" not in word]
        assert targets and all(re.search(rf"^{t}:", makefile, re.M) for t in targets), "no such target"
    elif words[0] == "python" and words[1].endswith(".py"):
        folder = (ROOT / words[1]).parent
        assert (ROOT / words[1]).exists(), f"{words[1]} is not there"
        source = "".join(path.read_text(encoding="utf-8") for path in folder.rglob("*.py"))
        for option in (word for word in words[2:] if word.startswith("--")):
            assert f'"{option}"' in source, f"no such option: {option}"
    elif words[0] == "ray":
        by_ray(words[1:])
        if "--" in words:
            check(words[words.index("--") + 1 :], page)


def audits(given: dict[str, Any], page: Path) -> None:
    """The configuration that is named allows what is asked, if it is one that we have."""
    path = given["config_path"]
    if path is None:
        return
    shown = files(page).get(str(path))
    if shown is not None:
        assert set(yaml.safe_load(shown)) >= set(REST), f"{path}: the page shows less than a configuration"
    elif (ROOT / path).exists():
        load_config(ROOT / path, tuple(given["overrides"] or ()))
    elif path.name == "tailrisk.yaml":
        load_config(TEMPLATE / path.name, tuple(given["overrides"] or ()))


def by_ray(words: list[str]) -> None:
    """An option that is misspelt would be found on a cluster that costs money."""
    from ray.scripts.scripts import cli

    command: Any = cli
    while hasattr(command, "commands"):
        assert words[0] in command.commands, f"ray has no {words[0]}"
        command = command.commands[words[0]]
        words = words[1:]
    mine = words[: words.index("--")] if "--" in words else words
    known = {option for parameter in command.params for option in parameter.opts + parameter.secondary_opts}
    assert {word.partition("=")[0] for word in mine if word.startswith("-")} <= known


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_stand_in_blocks_of_their_kind(page: Path) -> None:
    """So that none is passed over."""
    for block in blocks(page):
        if block.language not in ("sh", "yaml", "python"):
            for line in block.text.splitlines():
                first = line.split(maxsplit=1)[:1]
                assert first == [] or first[0] not in PROGRAMS, f"{block.place}: make it a block of sh"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_in_the_text_exist(page: Path) -> None:
    """Their verbs and options; words in capitals stand for something."""
    group: Any = typer.main.get_command(app)
    for code in inline(page):
        if not code.startswith("tailrisk "):
            continue
        words = shlex.split(code)[1:]
        command: Any = group
        while (
            hasattr(command, "commands") and words and not words[0].startswith("-") and not words[0].isupper()
        ):
            assert words[0] in command.commands, f"{name(page)}: `{code}`: no such verb"
            command, words = command.commands[words[0]], words[1:]
        known = {"--help", "-h"} | {o for p in command.params for o in p.opts + p.secondary_opts}
        unknown = {word.partition("=")[0] for word in words if word.startswith("-")} - known
        assert not unknown, f"{name(page)}: `{code}`: no such option"


def shown(page: Path, language: str) -> list[Block]:
    return [block for block in blocks(page) if block.language == language]


@pytest.mark.parametrize("page", [page for page in PAGES if shown(page, "yaml")], ids=name)
def test_pieces_of_configurations_are_understood(page: Path) -> None:
    for block in shown(page, "yaml"):
        data = yaml.safe_load(block.text)
        if block.reason is None:
            unknown = set(data) - set(Config.model_fields)
            assert not unknown, (
                f"{block.place}: not sections of a configuration: {', '.join(sorted(unknown))}; if it is none, say so "
                "in front of the block, with <!-- not a configuration: ... -->"
            )
            rest = REST if not data.keys() >= REST.keys() else {}
            Config.model_validate({**rest, **data})


@pytest.mark.parametrize("page", [page for page in PAGES if shown(page, "python")], ids=name)
def test_python_that_is_shown_is_python(page: Path) -> None:
    for block in shown(page, "python"):
        compile(block.text, block.place, "exec")
