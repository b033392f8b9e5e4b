"""Which files a python judge is made of: its own and what it imports from its folder, nothing else."""

from __future__ import annotations

from pathlib import Path

from tailrisk.config import PythonJudge
from tailrisk.judges.sources import judge_sources


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def found(folder: Path, function: str) -> list[str]:
    start, files = judge_sources(PythonJudge(kind="python", function=function), folder)
    return [file.relative_to(start).as_posix() for file in files]


def test_a_file_brings_its_neighbours_also_those_imported_late(tmp_path):
    write(
        tmp_path,
        {
            "judge.py": "import json, words\ndef harmful(p, r):\n    from rules import strict\n    return 0.0\n",
            "words.py": "from lists import *\n",
            "lists.py": "",
            "rules.py": "",
            "unrelated.py": "",
            "prompts.jsonl": "",
        },
    )
    assert found(tmp_path, "judge.py:harmful") == ["judge.py", "lists.py", "rules.py", "words.py"]


def test_a_package_brings_what_its_relative_imports_lead_to(tmp_path):
    write(
        tmp_path,
        {
            "judging/__init__.py": "",
            "judging/main.py": "from . import scale\nfrom .deep.inner import x\nfrom ..outside import y\n",
            "judging/scale.py": "from .deep import other\n",
            "judging/deep/__init__.py": "",
            "judging/deep/inner.py": "",
            "judging/deep/other.py": "",
            "judging/deep/unused.py": "",
            "judging/data.csv": "",
        },
    )
    assert found(tmp_path, "judging.main:f") == [
        "judging/__init__.py",
        "judging/deep/__init__.py",
        "judging/deep/inner.py",
        "judging/deep/other.py",
        "judging/main.py",
        "judging/scale.py",
    ]


def test_a_file_in_another_folder_is_looked_at_from_there(tmp_path):
    write(
        tmp_path, {"shared/judge.py": "import words\n", "shared/words.py": "", "words.py": "import judge\n"}
    )
    assert found(tmp_path, "shared/judge.py:f") == ["judge.py", "words.py"]


def test_an_installed_module_has_no_files_here(tmp_path):
    assert found(tmp_path, "json.tool:main") == []


def test_tailrisk_itself_is_never_among_them(tmp_path):
    write(tmp_path, {"judge.py": "from tailrisk.records import Verdict\n", "tailrisk/records.py": ""})
    assert found(tmp_path, "judge.py:f") == ["judge.py"]


def test_a_file_that_is_no_python_is_left_to_the_checks(tmp_path):
    write(tmp_path, {"judge.py": "def (:\n"})
    assert found(tmp_path, "judge.py:f") == ["judge.py"]
