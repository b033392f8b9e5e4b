"""The pages of the documentation as data: their blocks, links and markers. The convention is in docs/README.md:

* a block ``sh`` holds commands, and every command is run, the blocks of a page in order, in one scratch folder;
* ``<!-- not run: WHY -->`` in front of a block: its commands are only held against the program, line by line;
* ``<!-- starts with: a finished audit -->`` anywhere in a page: ``my-audit/`` is there, with its finished run;
* a block whose first line is a comment with a file's name (``# judge.yaml``) is written to that file first, and so
  is a comment of its own, ``<!-- file NAME`` on its first line, then the content;
* a block ``yaml`` is part of a configuration and validated, but for ``<!-- not a configuration: WHAT -->``;
* a comment ``# exit N`` behind a command: it ends with N (else with 0, an audit's 3 included).
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path
    for folder in ("docs", "clusters", "examples")
    for path in (ROOT / folder).rglob("*.md")
    if not any(part.startswith(".") for part in path.relative_to(ROOT).parts)
) + sorted(ROOT.glob("*.md"))

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_MARK = re.compile(r"^<!-- (not run|not a configuration): ([^>]+?) -->\s*\Z", re.MULTILINE)
_NAMED = re.compile(r"# ([\w./-]+\.(?:ya?ml|py|jsonl|csv|txt))$")
_HIDDEN = re.compile(r"^<!-- file (\S+)\n(.*?)^-->$", re.DOTALL | re.MULTILINE)
FINISHED = "<!-- starts with: a finished audit -->"
PROGRAMS = {"tailrisk", "make", "python", "pip", "ray", "kubectl", "helm", "aws", "gcloud", "export"}
"""A line that begins with one of these is a command, whatever its block is called."""


@dataclass(frozen=True)
class Block:
    """``reason``: why it is not run, or not validated; None without a marker."""

    page: Path
    line: int
    language: str
    text: str
    reason: str | None

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def file(self) -> str | None:
        """The file that it shows whole, if it says so."""
        named = _NAMED.match(self.text.partition("\n")[0])
        return named[1] if named else None

    @property
    def commands(self) -> list[Command]:
        if self.language != "sh":
            return []
        text = self.text.replace("\\\n", " ")
        return [Command(self, line) for line in text.splitlines() if shlex.split(line, comments=True)]


@dataclass(frozen=True)
class Command:
    block: Block
    line: str

    @property
    def words(self) -> list[str]:
        return shlex.split(self.line, comments=True)

    @property
    def exits(self) -> int | None:
        """The status that it says it ends with."""
        said = re.search(r"#.*\bexit (\d+)", self.line)
        return int(said[1]) if said else None


def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(page: Path) -> Iterator[Block]:
    text = read(page)
    for found in _FENCE.finditer(text):
        mark = _MARK.search(text[: found.start()])
        line = text.count("\n", 0, found.start()) + 1
        yield Block(page, line, found[1], found[2], mark and mark[2])


def commands(page: Path) -> list[Command]:
    return [command for block in blocks(page) for command in block.commands]


def files(page: Path) -> dict[str, str]:
    """What the page writes, shown or hidden, by name."""
    shown = {block.file: block.text for block in blocks(page) if block.file and block.language != "sh"}
    return {**{found[1]: found[2] for found in _HIDDEN.finditer(read(page))}, **shown}


def prose(page: Path) -> str:
    """The page without its blocks and comments."""
    return re.sub(r"^<!--.*?-->", "", _FENCE.sub("", read(page)), flags=re.DOTALL | re.MULTILINE)


def inline(page: Path) -> list[str]:
    """Text in backquotes."""
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose(page))]


def anchors(page: Path) -> set[str]:
    """Names of the headings as GitHub makes them."""
    seen: dict[str, int] = {}
    names = set()
    for heading in re.findall(r"^#+ +(.+)$", _FENCE.sub("", read(page)), re.MULTILINE):
        text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").strip().lower()
        name = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        number = seen.get(name, 0)
        seen[name] = number + 1
        names.add(f"{name}-{number}" if number else name)
    return names


def links(page: Path) -> list[str]:
    """Targets of links and images, those to other sites left out."""
    found = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`]*`", "", prose(page)))
    return [link for link in found if "://" not in link and not link.startswith("mailto:")]


def table_after(page: Path, heading: str) -> dict[str, str]:
    """First and second column of the first table after some text."""
    text, rows = read(page), []
    for line in text[text.index(heading) :].splitlines():
        if line.startswith("|"):
            rows.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))])
        elif rows:
            break
    return {row[0].strip("`"): row[1] for row in rows[2:]}
