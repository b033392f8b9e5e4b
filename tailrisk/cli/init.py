"""``tailrisk init``: a commented configuration and three harmless prompts to start from."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Annotated

import typer

from tailrisk.cli.guard import Verbose, guarded, say
from tailrisk.errors import ConfigError

FILES = ("tailrisk.yaml", "prompts.jsonl")


@guarded
def init(
    folder: Annotated[Path, typer.Argument(help="Where to put the files; made if missing.")] = Path("."),
    verbose: Verbose = False,
) -> None:
    """Write a commented tailrisk.yaml and prompts.jsonl.

    Example: tailrisk init my-audit
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder}: is a file; name a folder")
    there = [str(folder / name) for name in FILES if (folder / name).exists()]
    if there:
        raise ConfigError(
            f"{', '.join(there)}: already there, nothing written; name another folder, or remove them"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            text = resources.files("tailrisk.cli").joinpath("templates", name).read_text(encoding="utf-8")
            # "x": a file that appeared in between is refused too
            with (folder / name).open("x", encoding="utf-8") as out:
                out.write(text)
    except OSError as error:
        raise ConfigError(f"{folder}: cannot write here: {error.strerror}") from error
    config = folder / FILES[0]
    say(f"wrote {config} and {folder / FILES[1]}")
    say(f"next: tailrisk plan {config}   (what it would cost)\n      tailrisk audit {config}  (run it)")
