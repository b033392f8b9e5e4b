"""The files that a ``python`` judge is made of: its own, and those that it imports from its folder.

They are found by reading the import statements, those inside functions too; nothing is run. What a judge opens
as data is not seen.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tailrisk.config import PythonJudge

_OURS = "tailrisk"


def judge_sources(spec: PythonJudge, base: Path) -> tuple[Path, list[Path]]:
    """The folder in which the judge's imports are looked for, and its files in that folder or below it.

    A module of an installed package has no files here: the list is empty.
    """
    where = spec.function.rpartition(":")[0]
    if where.endswith(".py"):
        path = (base / Path(where).expanduser()).resolve()
        return path.parent, sorted({path, *_imported(path.parent, [path])})
    return base, sorted(_imported(base, _module_files(base, where)))


def _imported(folder: Path, files: list[Path]) -> set[Path]:
    """These files and all that they lead to."""
    found: set[Path] = set()
    waiting = list(files)
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += [file for name in _names(path, folder) for file in _module_files(folder, name)]
    return found


def _names(path: Path, folder: Path) -> Iterator[str]:
    """Absolute names of the modules that a file imports, or may import."""
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return
    package = path.relative_to(folder).parent.parts
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            start = ".".join([*above, *([node.module] if node.module else [])])
            yield start
            yield from (f"{start}.{alias.name}".lstrip(".") for alias in node.names)


def _module_files(folder: Path, name: str) -> list[Path]:
    """The files that importing ``name`` loads from the folder, its packages' own included."""
    parts = name.split(".")
    if not name or parts[0] == _OURS:
        return []
    found = []
    for depth in range(1, len(parts) + 1):
        place = folder.joinpath(*parts[:depth])
        found += [f for f in (place / "__init__.py", place.with_name(f"{place.name}.py")) if f.is_file()]
    return found
