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


BARE = """
import typer
app = typer.Typer()
app.command("one")(lambda: None)
app.command("two")(lambda: None)
app(["--help"])
"""


def test_help_costs_little_more_than_that_of_any_command_of_its_kind():
    def cpu(*arguments: str) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *arguments], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    # By turns, since machines differ, and the same one from moment to moment.
    pairs = [(cpu("-m", "tailrisk", "--help"), cpu("-c", BARE)) for _ in range(3)]
    assert min(ours for ours, _ in pairs) < 2.0 * min(bare for _, bare in pairs)


def test_help_groups_the_verbs():
    done = subprocess.run(
        [sys.executable, "-m", "tailrisk", "--help"], capture_output=True, text=True, check=True
    )
    first = [line.strip("│╭─ ").split(" ")[0] for line in done.stdout.splitlines()]
    verbs = ["Start", "init", "doctor", "Run", "plan", "audit", "submit", "Inspect", "show", "report"]
    assert [word for word in first if word in verbs] == verbs
