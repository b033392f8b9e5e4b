r"""What the driver costs: CPU a draw, memory, and how well many replicas are kept busy, with simulated laws.

    python examples/benchmarks/scale.py --quick
    python examples/benchmarks/scale.py --json examples/benchmarks/scale.json --page examples/benchmarks
    python examples/benchmarks/scale.py --parts audit --draws 10000000 --json large.json

The driver, the log, the statistics, the executor and Ray are those of every audit; only the models and the judge are
tables that answer at once or sleep. Parts: ``audit`` (whole audits of so many ``--draws``, each in a process of its
own, with so many ``--prompt-draws``), ``curve`` (the same work for each replica on 1 to 64 replicas that sleep),
``dispatch`` (batches a second when there is nothing to wait for) and ``keys`` (a million batches through the books).
``--quick`` takes a few minutes, the full form an hour; an existing JSON file keeps the rows that are not run again.
Linux only: memory is read from /proc.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE)]
# Workers are processes of their own and import the simulated laws too.
os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])

from simulated import page  # noqa: E402

PARTS = ("audit", "curve", "dispatch", "keys")
DRAWS = {"quick": (10_000, 50_000), "full": (10_000, 100_000, 1_000_000)}
CURVE = {
    "quick": {"replicas": (1, 4), "sleep": 0.5, "batches": 24},
    "full": {"replicas": (1, 4, 16, 64), "sleep": 1.0, "batches": 48},
}
AUDIT_LIMIT_S = 3 * 3600


def audits(sizes: tuple[int, ...], a_prompt: int) -> Iterator[dict[str, Any]]:
    for draws in sizes:
        given = json.dumps({"draws": draws, "a_prompt": a_prompt, "replicas": 8, "sleep": 0.01})
        yield in_process("simulated.whole", given)


def in_process(module: str, given: str) -> dict[str, Any]:
    """What ``module`` says, in a process of its own, for the memory of one is what is measured."""
    done = subprocess.run(
        [sys.executable, "-m", module, given],
        stdout=subprocess.PIPE,
        timeout=AUDIT_LIMIT_S,
        check=True,
        text=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def numbers(text: str) -> tuple[int, ...]:
    return tuple(int(n) for n in text.split(","))


def say(line: str) -> None:
    print(line, flush=True)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small sizes: under five minutes")
    parser.add_argument("--parts", default=",".join(PARTS), help="which, by commas; default: all")
    parser.add_argument("--draws", help="sizes of the audits, by commas")
    parser.add_argument("--prompt-draws", type=int, default=100, help="draws a prompt of the audits")
    parser.add_argument("--replicas", help="points of the curve, by commas")
    parser.add_argument("--json", type=Path, help="write the results")
    parser.add_argument("--page", type=Path, help="folder for scale.md and its figure")
    args = parser.parse_args(argv)
    form = "quick" if args.quick else "full"
    parts = args.parts.split(",")
    if unknown := sorted(set(parts) - set(PARTS)):
        parser.error(f"--parts: {', '.join(unknown)} is none of {', '.join(PARTS)}")
    results: dict[str, Any] = {}
    if args.json and args.json.exists():
        results = json.loads(args.json.read_text("utf-8"))
    results |= {"form": form, "machine": {"cores": os.cpu_count(), "python": platform.python_version()}}
    if args.quick:
        results = {k: v for k, v in results.items() if k not in parts}

    def save() -> None:
        if args.json:
            args.json.write_text(json.dumps(results, indent=1) + "\n", "utf-8")

    def put(part: str, keys: tuple[str, ...], row: dict[str, Any]) -> None:
        """In the place of an earlier row of the same size, and saved at once: the large ones take long."""

        def size(r: dict[str, Any]) -> list[Any]:
            return [r[key] for key in keys]

        others = [r for r in results.get(part, []) if size(r) != size(row)]
        results[part] = sorted([*others, row], key=size)
        save()

    if "dispatch" in parts:
        from simulated.dispatch import dispatch

        results["dispatch"] = dispatch(1000 if args.quick else 5000)
        say(f"dispatch: {results['dispatch']['a_second']:.0f} batches a second")
        save()
    if "keys" in parts:
        results["keys"] = in_process("simulated.keys", "40000" if args.quick else "1000000")
        say(f"{results['keys']['keys']:,} keys: {results['keys']['seconds']:.0f} s")
        save()
    if "curve" in parts:
        from simulated.curve import curve

        settings: dict[str, Any] = dict(CURVE[form])
        if args.replicas:
            settings["replicas"] = numbers(args.replicas)
        for row in curve(**settings):
            say(f"{row['replicas']} replicas: efficiency {row['efficiency']:.3f}")
            put("curve", ("replicas",), row)
    if "audit" in parts:
        for row in audits(numbers(args.draws) if args.draws else DRAWS[form], args.prompt_draws):
            say(
                f"{row['draws']:,} draws: {row['cpu_us_a_draw']:.0f} us of CPU a draw, {row['peak_mib']:.0f} MiB"
            )
            put("audit", ("prompts", "budget"), row)
    print("\n".join(page.lines(results)))
    if args.page:
        page.write(args.page, results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
