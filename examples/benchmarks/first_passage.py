"""Near-exact probabilities of first-passage events on the embedded model, by masked sampling.

    python examples/benchmarks/first_passage.py --json examples/benchmarks/first_passage.json
    python examples/benchmarks/first_passage.py --json /tmp/quick.json --quick

The events and the method are those of ``tests/truth/firstpassage.py``, so this runs from a checkout. Answers
are drawn in blocks with seeds of their own; the file is saved after every block, and the same command goes
on where the last one stopped, until each event has ``--blocks`` blocks. No event stops early because its
standard error looks small: that is how it looks until the first heavy answer is met. ``heaviest`` in the file
is the largest share of one answer in the sum. The standard error is that of the blocks' mean, from their spread:
the answers of a block are spread evenly and not independent. ``--quick``: one block of 64 answers for each event, a
check of the machinery. A block of 256 answers takes about a minute of one core, three for ``brackets-long``.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from truth.embeddedlm import Plain, plain_model  # pyright: ignore[reportMissingImports]
from truth.firstpassage import EVENTS, FirstPassage, event_truth  # pyright: ignore[reportMissingImports]

from tailrisk.seeds import derive_seed

ENOUGH_BLOCKS = 6
"""From which on the spread of the blocks says how far their mean may be off."""


def settings(event: FirstPassage) -> dict[str, Any]:
    """What a block depends on besides its seed."""
    return {
        "prompt": event.prompt,
        "characters": event.characters,
        "temperature": event.temperature,
        "max_new_tokens": event.max_new_tokens,
        "hotter": event.hotter,
        "guides": list(event.guides),
    }


def summary(blocks: list[dict[str, Any]]) -> dict[str, float]:
    """Probability and standard error from blocks of equal size: their mean, and their spread or, where there are
    few, the errors that they give themselves."""
    count = len(blocks)
    values = [b["value"] for b in blocks]
    value = sum(values) / count
    if count >= ENOUGH_BLOCKS:
        error = statistics.stdev(values) / math.sqrt(count)
    else:
        error = math.sqrt(sum(b["standard_error"] ** 2 for b in blocks)) / count
    return {
        "probability": value,
        "standard_error": error,
        "relative_error": error / value,
        "draws": sum(b["draws"] for b in blocks),
        "heaviest": max(b["heaviest"] * b["value"] for b in blocks) / (value * count),
    }


def add_block(record: dict[str, Any], event: FirstPassage, plain: Plain, draws: int) -> None:
    number = len(record["blocks"])
    started = time.monotonic()
    seed = derive_seed("first passage", event.name, number)
    found = event_truth(event, plain, draws=draws, seed=seed)
    record["blocks"].append(
        {
            "draws": draws,
            "value": found.value,
            "standard_error": found.standard_error,
            "heaviest": found.heaviest,
            "seconds": round(time.monotonic() - started, 1),
        }
    )
    record.update(summary(record["blocks"]))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--json", type=Path, required=True, help="file of the results; continued if it is there"
    )
    parser.add_argument("--events", nargs="*", default=None, help="names; default: all")
    parser.add_argument("--block", type=int, default=256, help="answers in one block")
    parser.add_argument("--blocks", type=int, default=12, help="blocks of each event")
    parser.add_argument(
        "--minutes", type=float, default=math.inf, help="stop after the block that ends later"
    )
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args(arguments)
    if given.quick:
        given.block, given.blocks = 64, 1
    events = [e for e in EVENTS if given.events is None or e.name in given.events]
    saved: dict[str, Any] = json.loads(given.json.read_text("utf-8")) if given.json.exists() else {}
    found = saved | {e.name: saved.get(e.name, {**settings(e), "blocks": []}) for e in events}
    for event in events:
        record = found[event.name]
        if {k: record.get(k) for k in settings(event)} != settings(event):
            print(f"{given.json}: {event.name!r} was counted with other settings; use another file")
            return 2
        if any(b["draws"] != given.block for b in record["blocks"]):
            size = record["blocks"][0]["draws"]
            print(f"{given.json}: {event.name!r} has blocks of another size; use --block {size}")
            return 2
    plain = plain_model()
    deadline = time.monotonic() + 60 * given.minutes

    while time.monotonic() < deadline:
        left = [e for e in events if len(found[e.name]["blocks"]) < given.blocks]
        if not left:
            break
        event = min(left, key=lambda e: len(found[e.name]["blocks"]))
        add_block(found[event.name], event, plain, given.block)
        counted = {name: record for name, record in found.items() if record["blocks"]}
        given.json.write_text(json.dumps(counted, indent=1) + "\n", "utf-8")
        record = found[event.name]
        print(
            f"{event.name:<14} {record['probability']:.4e} +- {100 * record['relative_error']:.1f} % "
            f"({record['draws']} masked answers)",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
