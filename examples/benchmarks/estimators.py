r"""The study of estimators: bias, coverage, trust and draws needed, against probabilities that are known exactly.

    python examples/benchmarks/estimators.py --quick --json study.json
    python examples/benchmarks/estimators.py --jobs 2 --json examples/benchmarks/estimators.json \
        --page examples/benchmarks

The first form takes a few minutes, the second most of an hour (``--parts`` runs some of it, ``--jobs`` so many parts
at once; an existing JSON file of the same form keeps its other parts). ``--page`` writes ``estimators.md`` and its two
figures from the JSON file. Seeds are fixed: the same machine gives the same numbers.

Parts: ``bias`` and ``trust`` (independent replications of one round in ten worlds), ``adaptive`` (the whole driver
with shares and stopping by results), ``oversteered``, ``efficiency`` (draws until a factor of two is reached with
probability 95 %, every draw counted), ``shares`` (what learned shares save in whole audits), ``openings`` and
``passages`` (events of two or three tokens and of whole answers on the embedded language model).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
TESTS = HERE.parents[1] / "tests"
# The exact worlds are those of the tests, so that there is one of each.
sys.path[:0] = [str(HERE), str(TESTS), str(TESTS / "stats")]

from study import adaptive, efficiency, oversteered, page, published, shares, trust, worlds  # noqa: E402

QUICK = {
    "bias": 220,
    "trust": 25,
    "adaptive": 10,
    "oversteered": 60,
    "efficiency": 50,
    "shares": 8,
    "openings": 20,
    "passages": 6,
}
FULL = {
    "bias": 1500,
    "trust": 1000,
    "adaptive": 1000,
    "oversteered": 1000,
    "efficiency": 500,
    "shares": 1000,
    "openings": 100,
    "passages": 16,
}
PLAIN_FROM = 0.9e-3
"""Plain sampling is checked where it can reach: draws enough for a standard error of 2 %."""


def bias(times: int) -> list[dict[str, Any]]:
    rows = []
    for number, world in enumerate(worlds.WORLDS):
        names = worlds.FAMILIES["good"]
        counts = worlds.counts_of(1 + len(names), world.draws // 2)
        found = trust.bias(world, worlds.replications(world, names, counts, times, number))
        if world.p >= PLAIN_FROM:
            found["plain"] = trust.plain_bias(world, times, number)
        rows.append({"world": world.name, "p": world.p, "draws": int(counts.sum()), "estimators": found})
    return rows


def trusted(times: int) -> list[dict[str, Any]]:
    return [
        {
            "world": world.name,
            "p": world.p,
            "draws": world.draws,
            "family": family,
            **trust.trust(world, family, times, seed=100 + number),
        }
        for number, world in enumerate(worlds.WORLDS)
        for family in worlds.FAMILIES
    ]


def adapted(times: int) -> list[dict[str, Any]]:
    families = ("good", "mode-missing, over-steered")
    return [{"family": f, **row} for f in families for row in adaptive.audits(f, times)]


def needed(times: int) -> dict[str, Any]:
    quick = times < FULL["efficiency"]
    searches, pool_size = (5, 50_000) if quick else (40, 400_000)
    return {
        name: efficiency.compare(
            places, times=times, searches=searches, pool_size=pool_size, seed=5, every=4 if quick else 1
        )
        for name, places in (("alike", published.ALIKE), ("unlike", published.UNLIKE))
    }


def learned(times: int) -> list[dict[str, Any]]:
    return shares.learned(times, shares.CASES[:1] if times < FULL["shares"] else shares.CASES)


def opened(times: int) -> list[dict[str, Any]]:
    from study.embedded import openings

    return openings(times, ("yes", "maybe") if times < FULL["openings"] else None)


def passed(times: int) -> list[dict[str, Any]]:
    from study.embedded import passages

    return passages(times, ("brackets-cool",) if times < FULL["passages"] else None)


def too_strong(times: int) -> list[dict[str, Any]]:
    return oversteered.oversteered(times, seed=1)


PARTS: dict[str, Callable[[int], Any]] = {
    "bias": bias,
    "trust": trusted,
    "adaptive": adapted,
    "oversteered": too_strong,
    "efficiency": needed,
    "shares": learned,
    "openings": opened,
    "passages": passed,
}


LONGEST = ("passages", "trust", "shares", "efficiency", "openings", "adaptive", "bias", "oversteered")
"""The order in which parts are begun where several run at once."""


def run(part: str, times: int) -> tuple[str, Any, float]:
    began = time.monotonic()
    found = PARTS[part](times)
    return part, found, round(time.monotonic() - began, 1)


def in_order(results: dict[str, Any]) -> dict[str, Any]:
    """The same with the parts in the order of ``PARTS``, whichever ended first."""
    return {key: results[key] for key in ("form", "seconds", *PARTS) if key in results}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="few replications: under five minutes")
    parser.add_argument("--parts", help="some of: " + ", ".join(PARTS))
    parser.add_argument(
        "--jobs", type=int, default=1, help="parts to run at once, each a process of one thread"
    )
    parser.add_argument("--json", type=Path, help="write (and keep other parts of) this file")
    parser.add_argument("--page", type=Path, help="folder for estimators.md and its figures")
    args = parser.parse_args(argv)
    parts = [p for p in (args.parts or ",".join(PARTS)).split(",") if p]
    if unknown := sorted(set(parts) - set(PARTS)):
        parser.error(f"--parts: unknown {unknown[0]!r}; known: {', '.join(PARTS)}")
    form = "quick" if args.quick else "full"
    results: dict[str, Any] = {"form": form, "seconds": {}}
    if args.json and args.json.exists():
        kept = json.loads(args.json.read_text("utf-8"))
        if kept.get("form") == form:
            results = kept
    size = QUICK if args.quick else FULL
    with ProcessPoolExecutor(args.jobs, mp_context=get_context("spawn")) as pool:
        for done in as_completed(
            [pool.submit(run, part, size[part]) for part in sorted(parts, key=LONGEST.index)]
        ):
            part, results[part], results["seconds"][part] = done.result()
            print(f"{part}: {results['seconds'][part]:.0f} s", flush=True)
            if args.json:
                args.json.write_text(json.dumps(in_order(results), indent=1) + "\n", "utf-8")
    verdicts = page.verdicts(results)
    for line in verdicts:
        print(("held    " if line.held else "MISSED  ") + line.text)
    if args.page:
        args.page.mkdir(parents=True, exist_ok=True)
        page.write(results, verdicts, args.page)
        print(f"written: {args.page / 'estimators.md'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
