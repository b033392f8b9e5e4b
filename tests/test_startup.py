"""The command line answers at once: nothing heavy is imported before a verb needs it."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

HEAVY = {
    "torch",
    "ray",
    "mlflow",
    "transformers",
    "peft",
    "matplotlib",
    "pydantic",
    "scipy",
    "numpy",
    "pyarrow",
}

PROBE = """
import sys
{program}
print(" ".join(sorted({{name.partition(".")[0] for name in sys.modules}})))
"""


def modules_after(program: str) -> set[str]:
    code = PROBE.format(program=program)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    "program",
    [
        "import tailrisk",
        "from tailrisk.cli import run; assert run(['--help']) == 0",
        "import tailrisk.errors, tailrisk.seeds",
    ],
)
def test_no_heavy_library_is_imported(program):
    assert not HEAVY & modules_after(program)


def test_the_help_of_a_verb_imports_nothing_heavy_of_ours():
    """Typer itself looks for pydantic when it describes an argument."""
    loaded = modules_after("from tailrisk.cli import run; assert run(['audit', '--help']) == 0")
    assert not (HEAVY - {"pydantic"}) & loaded


def test_help_takes_less_than_half_a_second_of_cpu():
    def cpu() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "tailrisk", "--help"], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(cpu() for _ in range(3)) < 0.5


def test_help_groups_the_verbs():
    done = subprocess.run(
        [sys.executable, "-m", "tailrisk", "--help"], capture_output=True, text=True, check=True
    )
    first = [line.strip("│╭─ ").split(" ")[0] for line in done.stdout.splitlines()]
    verbs = ["Start", "init", "doctor", "Run", "plan", "audit", "submit", "Inspect", "show", "report"]
    assert [word for word in first if word in verbs] == verbs
